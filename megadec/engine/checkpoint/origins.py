"""Which weights a run began from, as its checkpoints keep it from the first save on.

A run carries over what the run before it began from, so a long chain of runs repeats itself; in return its first links
may go.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.engine.checkpoint.manifest import checkpoint_name
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CHECKPOINTS, NO_PATH, Job

# Weights: `name` (of an export, or NAME/step_00000100), `step`, `skipped_sha256`; or only `path`.
Source = Mapping[str, Any]


def origins_at_start(job: Job, found: tuple[Path, Mapping[str, Any]] | None) -> tuple[Source, ...]:
    """What the checkpoints of a start say that their run began from.

    found: the checkpoint to go on from and its manifest; None where the run begins.
    """
    own = job.run.folder.resolve()
    if found is None:
        return tuple(origins_of({"run": to_dict(job.run), "task": job.task.manifest}, own))
    path, manifest = found
    folder = run_folder_of(path)
    before = tuple(origins_of(manifest, folder))
    return before if folder == own else (*before, _source_of(path.resolve(), manifest))


def origins_of(manifest: Mapping[str, Any], run_folder: Path) -> Iterator[Source]:
    """What a checkpoint of the run in `run_folder` says that the run began from.

    One from before this was recorded, or a run that begins, tells it by its task and the paths in its options. A
    checkpoint of the run itself is none: that is an earlier step.
    """
    if "origins" in manifest:
        yield from manifest["origins"]
        return
    run = manifest["run"]
    if stated := manifest.get("task", {}).get("initial"):
        yield stated
    elif run.get("method") != "scratch":
        model = run.get("model", {})
        yield from ({"path": str(Path(model[key]).resolve())} for key in ("init_from", "path") if model.get(key))
    resume = run.get("checkpoint", {}).get("resume", "auto")
    if resume not in NO_PATH and run_folder_of(Path(resume)) != run_folder.resolve():
        yield {"path": str(Path(resume).resolve())}


def run_folder_of(path: Path) -> Path:
    """The folder of a checkpoint's run, resolved; `path` itself where it lies in no run."""
    path = path.resolve()
    return path.parent.parent if path.parent.name == CHECKPOINTS else path


def _source_of(path: Path, manifest: Mapping[str, Any]) -> Source:
    """A checkpoint as the origin of another run. One that was copied away from its run has the run's name inside."""
    folder, step = run_folder_of(path), int(manifest["step"])
    name = manifest["run"]["name"] if folder == path else folder.name
    return {
        "kind": "checkpoint",
        "name": f"{name}/{checkpoint_name(step)}",
        "step": step,
        "tokens": manifest["tokens"],
        "skipped_sha256": Skipped.from_manifest(manifest).sha256(step),
        "path": str(path),
    }
