"""What was made of which weights: runs, their checkpoints, exports, and what began from those.

In: folders in which to look, and the step from which on the weights of a run count. Out: plain values for JSON.
Exports, exports of exports, and runs that name such a model as their initial one or go on from its checkpoint are found
by what their own files say. Manifests name models by run and step, so two runs of one name are both taken for the
origin, and weights whose step is not known count as having seen everything. A run may go back and do steps again
without documents that it learned from before, so what its newest checkpoint left out holds for other weights only where
they say, by a hash, that they left out the same; for the rest every step that read counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from megadec.common.errors import CheckpointError, ConfigError, ExportError
from megadec.common.files import read_json
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.checkpoint.origins import Source, origins_of, run_folder_of
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CHECKPOINTS
from megadec.export.read.megadec import FORMAT as FOLDER_FORMAT
from megadec.export.read.model import MANIFEST_FILE
from megadec.export.read.source import PROVENANCE_FILE


class FirstSteps(NamedTuple):
    """The first step that read something, and the first whose update it went into; None for none."""

    read: int
    learned: int | None


EVERYTHING = FirstSteps(0, 0)


@dataclass(frozen=True)
class Origin:
    """Weights by the name of their run or export, their step, and `Skipped.sha256`; None where it is not known."""

    name: str
    step: int | None
    skipped_sha256: str | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run as its checkpoints tell of it. manifest: the newest. origins: the weights that it began from.

    hashes: of each checkpoint, `Skipped.sha256`.
    """

    folder: Path
    checkpoints: dict[int, Path]
    manifest: Mapping[str, Any]
    origins: tuple[Origin, ...]
    hashes: Mapping[int, str | None]

    @property
    def name(self) -> str:
        """The name that exports know it by."""
        return self.folder.resolve().name

    @property
    def last_step(self) -> int:
        """The newest step of which there is a checkpoint."""
        return max(self.checkpoints)

    @property
    def skipped(self) -> Skipped:
        """What the newest checkpoint has not learned from."""
        return Skipped.from_manifest(self.manifest)


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
    paths = checkpoints_in(folder / CHECKPOINTS)
    if not paths:
        raise CheckpointError(f"{folder / CHECKPOINTS} has no checkpoint; a run's manifest says what it was trained on")
    manifests = [read_json(path / MANIFEST_FILE, CheckpointError) for path in paths]
    origins = {origin for manifest in manifests for origin in map(_origin, origins_of(manifest, folder))}
    checkpoints = {int(manifest["step"]): path for manifest, path in zip(manifests, paths, strict=True)}
    hashes = {int(manifest["step"]): Skipped.from_manifest(manifest).sha256(manifest["step"]) for manifest in manifests}
    return RunRecord(folder, checkpoints, manifests[-1], tuple(sorted(origins, key=str)), hashes)


def origin_of_path(path: Path) -> Origin:
    """The weights behind a path that a run names: a checkpoint, a run, or an export, which need not exist any more."""
    path = path.resolve()
    if (run := run_folder_of(path)) != path:
        return Origin(run.name, _step(path.name))
    found = read_export(path) if path.is_dir() else None
    return Origin(path.name, None) if found is None else found.origin


def _step(name: str) -> int | None:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


def _origin(source: Source) -> Origin:
    """From what an export or a checkpoint says: NAME/step_00000100, the name of another export, or only a path."""
    if "name" not in source:
        return origin_of_path(Path(source["path"]))
    name, _, checkpoint = str(source["name"]).partition("/")
    step = source.get("step")
    return Origin(name, _step(checkpoint) if step is None else int(step), source.get("skipped_sha256"))


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


class _Seen(NamedTuple):
    """What a run or an export saw, and what its newest checkpoint has not learned from."""

    first: FirstSteps
    skipped: Skipped | None = None

    def holds(self, weights: Origin) -> bool:
        """Whether these weights of the run are late enough, or of a step that nobody knows."""
        if weights.step is None:
            return True
        at = self.first.learned if self.is_known(weights) else self.first.read
        return at is not None and weights.step >= at

    def is_known(self, weights: Origin) -> bool:
        """Whether the weights left out what the run's newest checkpoint says, or nothing of this was left out."""
        if self.first.read == self.first.learned:
            return weights.step is not None or self.first == EVERYTHING
        if self.skipped is None or weights.step is None or weights.skipped_sha256 is None:
            return False
        return weights.skipped_sha256 == self.skipped.sha256(weights.step)


def descendants(
    first_steps: Mapping[Path, FirstSteps], runs: Sequence[RunRecord], exports: Sequence[ExportRecord]
) -> dict[str, list[dict[str, Any]]]:
    """Everything that learned from what a run of `first_steps` (folder -> steps) saw at these steps first.

    runs: those of `first_steps` are among them. Returns checkpoints, exports and runs, with where each has it from;
    `assumed` where it does not say what its weights left out, and so counts as having learned from all that was read.
    """
    own = {folder.resolve(): first for folder, first in first_steps.items()}
    seen = {
        run.folder.resolve(): _Seen(own[run.folder.resolve()], run.skipped)
        for run in runs
        if run.folder.resolve() in own
    }
    tainted: dict[Path, bool] = {}  # folder of an export -> whether that is assumed
    changed = True
    assumed_runs: dict[Path, bool] = {}
    while changed:  # until nothing new was found: exports are made of exports, and runs begin from runs
        names: dict[str, dict[Path, _Seen]] = {}
        for run in runs:
            if (one := seen.get(run.folder.resolve())) is not None:
                names.setdefault(run.name, {})[run.folder.resolve()] = one
        for export in exports:
            if export.folder.resolve() in tainted:
                names.setdefault(export.name, {})[export.folder.resolve()] = _Seen(EVERYTHING)
        fresh_runs, fresh = {}, {}
        for run in runs:
            folder = run.folder.resolve()
            if (folder not in seen or seen[folder].first != EVERYTHING) and (by := _from(run.origins, names, folder)):
                fresh_runs[folder] = _assumed(by)
        for export in exports:
            if export.folder.resolve() not in tainted and (
                by := _from([export.origin], names, export.folder.resolve())
            ):
                fresh[export.folder.resolve()] = _assumed(by)
        seen |= {folder: _Seen(EVERYTHING) for folder in fresh_runs}
        assumed_runs |= fresh_runs
        tainted |= fresh
        changed = bool(fresh or fresh_runs)
    return _report(seen, set(own), tainted, assumed_runs, runs, exports)


def _from(
    origins: Iterable[Origin], names: Mapping[str, Mapping[Path, _Seen]], own: Path
) -> list[tuple[Origin, _Seen]]:
    """Which of the origins hold it, and what each has it from; `own` may have its origin's name, and is none of it."""
    return [
        (origin, one)
        for origin in origins
        for folder, one in names.get(origin.name, {}).items()
        if folder != own and one.holds(origin)
    ]


def _assumed(by: Iterable[tuple[Origin, _Seen]]) -> bool:
    return not any(one.is_known(origin) for origin, one in by)


def _report(
    seen: Mapping[Path, _Seen],
    own: set[Path],
    tainted: Mapping[Path, bool],
    assumed_runs: Mapping[Path, bool],
    runs: Sequence[RunRecord],
    exports: Sequence[ExportRecord],
) -> dict[str, list[dict[str, Any]]]:
    affected = [run for run in runs if run.folder.resolve() in seen]
    checkpoints = []
    for run in affected:
        folder = run.folder.resolve()
        for step, path in sorted(run.checkpoints.items()):
            weights = Origin(run.name, step, run.hashes[step])
            if seen[folder].holds(weights):
                assumed = assumed_runs.get(folder, not seen[folder].is_known(weights))
                checkpoints.append({"path": str(path), "run": run.name, "step": step, "assumed": assumed})
    began = [run for run in affected if run.folder.resolve() not in own]
    return {
        "checkpoints": checkpoints,
        "exports": [
            {
                "path": str(export.folder),
                "from": export.origin.name,
                "step": export.origin.step,
                "assumed": tainted[export.folder.resolve()],
            }
            for export in exports
            if export.folder.resolve() in tainted
        ],
        "runs": [
            {
                "path": str(run.folder),
                "from": [{"name": o.name, "step": o.step} for o in run.origins],
                "assumed": assumed_runs[run.folder.resolve()],
            }
            for run in began
        ],
    }
