"""Chooses the checkpoint to go on from, and compares it with the run before anything is built.

Rank 0 alone reads and hashes, so a shared file system has one reader; the others wait for its answer.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError, MegadecError
from megadec.common.files import remove_temporary, storage_errors
from megadec.engine.checkpoint.manifest import newest_whole, read_manifest, remove_partial
from megadec.engine.checkpoint.origins import run_folder_of
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CHECKPOINTS, INITIAL_CONTENT, NO_PATH, CommonRun, Job
from megadec.engine.runs.stages import flat, may_change, stage_values

# A checkpoint and its manifest.
Found = tuple[Path, dict[str, Any]]

# What may differ when a run goes on by itself, and what may differ beside that when a checkpoint is named on purpose.
MAY_DIFFER = (
    "output_folder", "model.execution", "checkpoint", "evaluate", "early_stopping", "metrics", "guard",
    "train.stop_at_step", "train.dry_run", "train.profile_steps", "train.micro_batch_size",
    "train.sequence_parallel_size", "data.workers", "data.prefetch_steps", "data.skip_documents",
    "data.skip_documents_file", "data.max_epochs", "data.verify", "data.bad_shards", "data.cache",
)  # fmt: skip
# Where these lie is free: `check_fits` and the stream compare what they hold.
KNOWN_BY_CONTENT = ("tokenizer", "data.train", "data.dev", "data.soft", "data.source")
INITIAL_WEIGHTS = ("init_from", "path")  # of `model`: `_with_moved_weights` compares what they hold
MAY_DIFFER_IF_NAMED = ("name", "train.steps", "train.precision", "schedule", "optimizer")


def find_checkpoint(job: Job, ranks: Ranks) -> Found | None:
    """The checkpoint to go on from, whole and fitting the run; None when the run begins. Collective."""
    return chosen_by_rank_0(ranks, lambda: _choose_checkpoint(job))


def chosen_by_rank_0(ranks: Ranks, choose: Callable[[], Found | None]) -> Found | None:
    """What `choose` returns on rank 0, on every rank; a MegadecError that it raises there too."""
    found: Found | MegadecError | None = None
    if ranks.rank == 0:
        try:
            found = choose()
        except MegadecError as error:
            found = error
    found = ranks.broadcast(found)
    if isinstance(found, MegadecError):
        raise found
    return found


def _choose_checkpoint(job: Job) -> Found | None:
    run = job.run
    with storage_errors(run.checkpoints):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_partial(run.checkpoints)
        remove_temporary(run.folder)
    named = run.checkpoint.resume not in NO_PATH
    found = _named_checkpoint(run) if named else newest_whole(run.checkpoints)
    if found is None:
        return None
    path, manifest = found
    defaults = to_dict(type(run)(name=run.name, tokenizer=run.tokenizer))
    check_same_run(path, _with_moved_weights(manifest, job), to_dict(run), defaults, manifest["step"], named=named)
    check_fits(path, manifest, job)
    job.task.stream.check(manifest["data"])
    return found


def _with_moved_weights(manifest: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The run in a checkpoint, its initial weights where this start has them if they are the same."""
    saved, content = dict(manifest["run"]), job.task.manifest.get(INITIAL_CONTENT)
    if content is None or manifest["task"].get(INITIAL_CONTENT) != content:
        return saved
    here = to_dict(job.run)["model"]
    return {**saved, "model": saved["model"] | {key: here[key] for key in INITIAL_WEIGHTS if key in here}}


def _named_checkpoint(run: CommonRun) -> Found:
    """What `checkpoint.resume` names, or the newest checkpoint of the run that went on from there, so that the same
    command goes on when it is given again.

    Raises ConfigError for a run without checkpoints, CheckpointError when the run has a newer checkpoint of another
    origin.
    """
    named = path = Path(run.checkpoint.resume)
    if (named / CHECKPOINTS).is_dir():
        if (found := newest_whole(named / CHECKPOINTS)) is None:
            raise ConfigError(f"checkpoint.resume={named}: {named / CHECKPOINTS} has no checkpoint")
        path = found[0]
    own = newest_whole(run.checkpoints)
    if own is not None and _went_on_from(own[1], named):
        return own
    if own is not None and own[0].name > path.name:
        raise CheckpointError(
            f"checkpoint.resume={path}, but {own[0]} is newer and did not begin there: remove that, or say"
            " checkpoint.resume=auto"
        )
    return path, read_manifest(path)


def _went_on_from(manifest: Mapping[str, Any], named: Path) -> bool:
    """Whether a checkpoint is of a start that went on from what is named, a checkpoint or a run, or of a later one.

    Within a run only the start itself counts: whoever names an earlier checkpoint after that may mean to go back.
    """
    named = named.resolve()
    if Path(manifest["run"]["checkpoint"]["resume"]).resolve() == named:
        return True
    origins = (Path(one["path"]) for one in manifest.get("origins", ()) if "path" in one)
    return any(named in (path, run_folder_of(path)) for path in origins)


def check_fits(path: Path, manifest: dict[str, Any], job: Job) -> None:
    """Raise CheckpointError when the checkpoint holds another model than this run trains.

    Ranks, ZeRO stage, offload and precision may be others.
    """
    kind, made = job.task.kind, job.shape_of(manifest["step"])
    shape = made.to_dict()
    # A field that came after the checkpoint was written has its default there.
    saved_kind, saved_shape = manifest["task"]["kind"], {**made.defaults(), **manifest["shape"]}
    if (saved_kind, saved_shape) != (kind, shape):
        raise CheckpointError(f"{path} holds another model: {saved_kind} {saved_shape}; this run has {kind} {shape}")
    if manifest["tokenizer"]["sha256"] != job.tokenizer.sha256:
        raise CheckpointError(f"{path} was trained with another tokenizer than {job.tokenizer.path}")


def check_same_run(
    path: Path,
    saved: Mapping[str, Any],
    wanted: Mapping[str, Any],
    defaults: Mapping[str, Any],
    step: int,
    *,
    named: bool,
) -> None:
    """Compare the run in a checkpoint of step `step` with the one that wants to go on from it, in every stage that had
    begun by then; what comes later is free.

    Options added since the checkpoint was written have the value in `defaults` there. Raises ConfigError naming the
    keys that differ, unless they may.
    """
    there, here = (
        [stage for stage in stage_values(run) if stage.first_step <= max(step, 1)] for run in (saved, wanted)
    )
    found, now = ([f"{stage.name} (from step {stage.first_step})" for stage in stages] for stages in (there, here))
    if found != now:
        raise ConfigError(
            f"{path} was trained in the stages {', '.join(found)}; this run has {', '.join(now)} up to there. Stages"
            " that have begun stay as they were; others may be added or changed"
        )
    free = tuple(f"{name}." for name in MAY_DIFFER + KNOWN_BY_CONTENT + (MAY_DIFFER_IF_NAMED if named else ()))
    for was, wants in zip(there, here, strict=True):
        new = dict(flat(wants.values))
        old = {key: value for key, value in flat(defaults) if key in new} | dict(flat(was.values))
        differing = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
        differing = [key for key in differing if not f"{key}.".startswith(free)]
        if differing:
            listed = "; ".join(f"{key}: {old.get(key)!r} there, {new.get(key)!r} here" for key in differing[:5])
            stage = f", in stage {was.name}" if len(there) > 1 else ""
            raise ConfigError(
                f"{path} is of a run with another configuration ({listed}{stage}): give the keys as they were"
                f"{_ways_out(path, differing) if 'stages' in wanted else ', or choose another name'}"
            )


def _ways_out(path: Path, differing: Sequence[str]) -> str:
    """What else a pretraining can do that wants other keys than its checkpoint has."""
    new_run = f", or choose another name, which --model.init_from={path} begins from these weights"
    if not all(map(may_change, differing)):
        return new_run
    return f", or go on with others as a new stage: --checkpoint.resume={path} --stage NAME{new_run}"
