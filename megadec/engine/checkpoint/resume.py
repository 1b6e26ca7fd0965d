"""Where a run goes on: the checkpoint to begin from, chosen and compared before anything is built.

In comes an opened run, out goes a whole checkpoint that fits it, or nothing when the run begins. Rank 0 alone reads and
hashes, and the others wait for its answer; that is one reader of a shared file system instead of many.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError, MegadecError
from megadec.common.files import remove_temporary, storage_errors
from megadec.engine.checkpoint.manifest import (
    check_fits,
    checkpoints_in,
    newest_whole,
    read_manifest,
    remove_partial,
)
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job

# What may differ when a run goes on by itself, and what may differ beside that when a checkpoint is named on purpose.
FREE_KEYS = (
    "model.execution",
    "output_folder",
    "checkpoint",
    "data.skip_documents",
    "data.skip_documents_file",
    "evaluate",
    "early_stopping",
    "metrics",
    "guard",
    "train.stop_at_step",
    "train.dry_run",
    "train.micro_batch_size",
    "train.sequence_parallel_size",
    "data.workers",
    "data.prefetch_steps",
    "data.verify",
    "data.bad_shards",
    "data.cache",
)
FREE_KEYS_FROM_PATH = ("name", "train.steps", "train.precision", "schedule", "optimizer")


def find_checkpoint(job: Job, ranks: Ranks) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from and its manifest, chosen and checked by rank 0; an error reaches every rank."""
    found: tuple[Path, dict[str, Any]] | MegadecError | None = None
    if ranks.rank == 0:
        try:
            found = _choose_checkpoint(job)
        except MegadecError as error:
            found = error
    found = ranks.broadcast(found)
    if isinstance(found, MegadecError):
        raise found
    return found


def _choose_checkpoint(job: Job) -> tuple[Path, dict[str, Any]] | None:
    run = job.run
    with storage_errors(run.checkpoints):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_partial(run.checkpoints)
        remove_temporary(run.folder)
    named = run.checkpoint.resume not in ("auto", "none")
    if named:
        path = Path(run.checkpoint.resume)
        found = path, read_manifest(path)
    else:
        newest = newest_whole(run.checkpoints)
        if newest is None:
            return None
        found = newest
    path, manifest = found
    defaults = to_dict(type(run)(name=run.name, tokenizer=run.tokenizer))
    check_same_run(path, manifest["run"], to_dict(run), defaults, named=named)
    check_fits(path, manifest, job)
    job.task.stream.check(manifest["data"])
    newer = [p for p in checkpoints_in(run.checkpoints) if p.name > path.name]
    if named and newer:
        raise CheckpointError(
            f"checkpoint.resume={path}, but {newer[-1]} is newer: remove what you go back behind, or say"
            " checkpoint.resume=auto"
        )
    return found


def check_same_run(
    path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any], defaults: Mapping[str, Any], *, named: bool
) -> None:
    """Compare the run in a checkpoint with the one that wants to go on from it.

    An option that came after the checkpoint counts there as what it is when nobody states it, in `defaults`. Raises
    ConfigError naming the keys that differ, unless they are free to.
    """
    free = FREE_KEYS + (FREE_KEYS_FROM_PATH if named else ())
    now = dict(_flat(wanted))
    before = {key: value for key, value in _flat(defaults) if key in now} | dict(_flat(saved))
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    differing = [key for key in differing if not any(key == name or key.startswith(f"{name}.") for name in free)]
    if differing:
        listed = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in differing[:5])
        raise ConfigError(
            f"{path} belongs to a run with another configuration ({listed}): choose another name for this run"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            pairs += _flat(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
