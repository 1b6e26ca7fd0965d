"""What was made of which weights: runs, their checkpoints, exports, and what began from those.

In: folders in which to look, and the step from which on the weights of a run count. Out: plain values for JSON.
Exports, exports of exports, and runs that name such a model as their initial one or go on from its checkpoint are
found by what their own files say. Trade-off: manifests name models by run and step, so two runs of one name are both
taken for the origin, and weights whose step is not known count as having seen everything.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megadec.common.errors import CheckpointError, ConfigError, ExportError
from megadec.common.files import read_json
from megadec.export.consolidate import CHECKPOINTS, MANIFEST_FILE
from megadec.export.megadec import FORMAT as FOLDER_FORMAT
from megadec.export.provenance import PROVENANCE_FILE

AUTOMATIC = ("auto", "none")


@dataclass(frozen=True)
class Origin:
    """Weights by the name of their run or export, and their step; None where it is not known."""

    name: str
    step: int | None


@dataclass(frozen=True)
class RunRecord:
    """A run as its checkpoints tell of it. origins: the weights that it began from. state: of its data, newest."""

    folder: Path
    checkpoints: dict[int, Path]
    manifest: Mapping[str, Any]
    origins: tuple[Origin, ...]

    @property
    def name(self) -> str:
        """The name that exports know it by."""
        return self.folder.resolve().name

    @property
    def foreign(self) -> tuple[Origin, ...]:
        """The origins that are not earlier steps of the run itself."""
        return tuple(origin for origin in self.origins if origin.name != self.name)

    @property
    def last_step(self) -> int:
        """The newest step of which there is a checkpoint."""
        return max(self.checkpoints)


@dataclass(frozen=True)
class ExportRecord:
    """An export as its own file tells of it."""

    folder: Path
    origin: Origin

    @property
    def name(self) -> str:
        """The name that what was made of it knows it by."""
        return self.folder.resolve().name


def read_run(folder: Path) -> RunRecord:
    """A run that has a checkpoint. Raises CheckpointError where it has none, or a manifest that is not readable."""
    # Imported here: it loads deepspeed, which takes seconds that a refused request need not.
    from megadec.engine.checkpoint import checkpoints_in

    paths = checkpoints_in(folder / CHECKPOINTS)
    if not paths:
        raise CheckpointError(f"{folder / CHECKPOINTS} has no checkpoint; a run's manifest says what it was trained on")
    manifests = [read_json(path / MANIFEST_FILE, CheckpointError) for path in paths]
    origins = {origin for manifest in manifests for origin in _origins(manifest)}
    checkpoints = {int(manifest["step"]): path for manifest, path in zip(manifests, paths, strict=True)}
    return RunRecord(folder, checkpoints, manifests[-1], tuple(sorted(origins, key=str)))


def _origins(manifest: Mapping[str, Any]) -> Iterator[Origin]:
    """The weights that a checkpoint's run says it began from."""
    run = manifest["run"]
    stated = manifest.get("task", {}).get("initial")
    if stated:
        yield _origin(stated)
    else:
        model = run.get("model", {})
        for path in (model.get("initial"), model.get("path")):
            if path and run.get("method") != "scratch":
                yield origin_of_path(Path(path))
    resume = run.get("checkpoint", {}).get("resume", "auto")
    if resume not in AUTOMATIC:
        yield origin_of_path(Path(resume))


def origin_of_path(path: Path) -> Origin:
    """The weights behind a path that a run names: a checkpoint, a run, or an export, which need not exist any more."""
    path = path.resolve()
    if path.parent.name == CHECKPOINTS:
        return Origin(path.parent.parent.name, _step(path.name))
    found = read_export(path) if path.is_dir() else None
    return Origin(path.name, None) if found is None else found.origin


def _step(name: str) -> int | None:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def _origin(source: Mapping[str, Any]) -> Origin:
    """From an export's `source`: NAME/step_00000100, or the name of another export."""
    name, _, checkpoint = str(source["name"]).partition("/")
    step = source.get("step")
    return Origin(name, _step(checkpoint) if step is None else int(step))


def read_export(folder: Path) -> ExportRecord | None:
    """An export of ours, or None where the folder is none. Raises ExportError for a file that is not readable."""
    for name in (PROVENANCE_FILE, MANIFEST_FILE):
        file = folder / name
        if not file.is_file():
            continue
        content = read_json(file, ExportError)
        if name == MANIFEST_FILE and (not isinstance(content, dict) or content.get("format") != FOLDER_FORMAT):
            continue
        if not isinstance(content, dict) or "name" not in content.get("source", {}):
            raise ExportError(f"{file} does not say where its weights come from: source.name is missing")
        return ExportRecord(folder, _origin(content["source"]))
    return None


def find_models(folders: Iterable[Path]) -> tuple[list[RunRecord], list[ExportRecord]]:
    """All runs with a checkpoint, and all exports, in these folders and below. Raises ConfigError for none such."""
    runs, exports = [], []
    for top in folders:
        if not top.is_dir():
            raise ConfigError(f"search={top} is no folder; name those that hold runs and exports")
        for root, names, _ in os.walk(top):
            folder = Path(root)
            names[:] = sorted(name for name in names if not name.startswith("."))
            if CHECKPOINTS in names:
                names.remove(CHECKPOINTS)
                if any((folder / CHECKPOINTS).glob(f"step_*/{MANIFEST_FILE}")):
                    runs.append(read_run(folder))
            elif (export := read_export(folder)) is not None:
                exports.append(export)
                names.clear()
    return runs, exports


def descendants(
    first_steps: Mapping[Path, int], runs: Sequence[RunRecord], exports: Sequence[ExportRecord]
) -> dict[str, list[dict[str, Any]]]:
    """Everything that saw what a run of `first_steps` (folder -> step) saw at that step first.

    runs: those of `first_steps` are among them. Returns checkpoints, exports and runs, with where each has it from.
    """
    first = {folder.resolve(): step for folder, step in first_steps.items()}
    seen = {run.folder.resolve(): first[run.folder.resolve()] for run in runs if run.folder.resolve() in first}
    tainted: dict[Path, Origin] = {}
    changed = True
    while changed:  # until nothing new was found: exports are made of exports, and runs begin from runs
        steps: dict[str, int] = {}
        for run in runs:
            if (at := seen.get(run.folder.resolve())) is not None:
                steps[run.name] = min(at, steps.get(run.name, at))
        names = steps | {export.name: 0 for export in exports if export.folder.resolve() in tainted}
        fresh_runs = [run for run in runs if seen.get(run.folder.resolve()) != 0 and _from(run.foreign, names)]
        fresh = [
            export for export in exports if export.folder.resolve() not in tainted and _from([export.origin], names)
        ]
        seen |= {run.folder.resolve(): 0 for run in fresh_runs}
        tainted |= {export.folder.resolve(): export.origin for export in fresh}
        changed = bool(fresh or fresh_runs)
    return _report(seen, set(first), tainted, runs, exports)


def _from(origins: Iterable[Origin], steps: Mapping[str, int]) -> Origin | None:
    """The first of the origins whose weights are of a step that is late enough, or of one that nobody knows."""
    for origin in origins:
        if origin.name in steps and (origin.step is None or origin.step >= steps[origin.name]):
            return origin
    return None


def _report(
    seen: Mapping[Path, int],
    own: set[Path],
    tainted: Mapping[Path, Origin],
    runs: Sequence[RunRecord],
    exports: Sequence[ExportRecord],
) -> dict[str, list[dict[str, Any]]]:
    affected = [run for run in runs if run.folder.resolve() in seen]
    checkpoints = [
        {"path": str(path), "run": run.name, "step": step}
        for run in affected
        for step, path in sorted(run.checkpoints.items())
        if step >= seen[run.folder.resolve()]
    ]
    began = [run for run in affected if run.folder.resolve() not in own]
    return {
        "checkpoints": checkpoints,
        "exports": [
            {"path": str(export.folder), "from": export.origin.name, "step": export.origin.step}
            for export in exports
            if export.folder.resolve() in tainted
        ],
        "runs": [
            {"path": str(run.folder), "from": [{"name": o.name, "step": o.step} for o in run.origins]} for run in began
        ],
    }
