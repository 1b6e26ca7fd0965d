"""What was made of which weights: runs and exports, each with the weights that it says it began from.

Files name weights by run and step, so two runs of one name are both taken for the origin, and weights whose step is not
known count as having seen everything. A run may go back and do steps again without documents that it learned from
before, so what its newest checkpoint left out holds for other weights only where they say, by a hash, that they left
out the same; for the rest every step that read counts.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from megadec.common.errors import CheckpointError, ConfigError, ExportError
from megadec.common.files import read_json
from megadec.engine.checkpoint.manifest import MANIFEST, checkpoints_in
from megadec.engine.checkpoint.origins import Source, origins_of, run_folder_of
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CHECKPOINTS
from megadec.export.read.megadec import FORMAT as FOLDER_FORMAT
from megadec.export.read.source import PROVENANCE_FILE


class Origin(NamedTuple):
    """Weights by the name of their run or export, their step, and `Skipped.sha256`; None where it is not known."""

    name: str
    step: int | None
    skipped_sha256: str | None = None


@dataclass(frozen=True)
class Model:
    """A run or an export as its own files tell of it. origins: the weights that it began from.

    Of a run: checkpoints, oldest first, by their weights; skipped, what the newest has not learned from.
    """

    folder: Path
    origins: tuple[Origin, ...]
    checkpoints: Mapping[Origin, Path] = field(default_factory=dict)
    skipped: Skipped | None = None

    @cached_property
    def place(self) -> Path:
        """The folder itself, whatever path leads to it."""
        return self.folder.resolve()

    @property
    def name(self) -> str:
        """The name that what was made of it knows it by."""
        return self.place.name


def read_run(folder: Path) -> Model:
    """A run that has a checkpoint. Raises CheckpointError where it has none, or a manifest that is not readable."""
    paths = checkpoints_in(folder / CHECKPOINTS)
    if not paths:
        raise CheckpointError(f"{folder / CHECKPOINTS} has no checkpoint; a run's manifest says what it was trained on")
    name, origins, checkpoints = folder.resolve().name, set(), {}
    for path in paths:
        manifest = read_json(path / MANIFEST, CheckpointError)
        skipped = Skipped.from_manifest(manifest)
        origins |= {_origin(source) for source in origins_of(manifest, folder)}
        checkpoints[Origin(name, skipped.last_step, skipped.sha256(skipped.last_step))] = path
    return Model(folder, tuple(sorted(origins, key=str)), checkpoints, skipped)


def read_export(folder: Path) -> Model | None:
    """An export of ours, or None where the folder is none. Raises ExportError for a file that is not readable."""
    for file in (folder / PROVENANCE_FILE, folder / MANIFEST):
        if not file.is_file():
            continue
        content = read_json(file, ExportError)
        if file.name == MANIFEST and (not isinstance(content, dict) or content.get("format") != FOLDER_FORMAT):
            continue
        if not isinstance(content, dict) or "name" not in content.get("source", {}):
            raise ExportError(f"{file} does not say where its weights come from: source.name is missing")
        return Model(folder, (_origin(content["source"]),))
    return None


def find_models(folders: Iterable[Path]) -> list[Model]:
    """All runs with a checkpoint, and all exports, in these folders and below. Raises ConfigError for none such."""
    found = []
    for top in folders:
        if not top.is_dir():
            raise ConfigError(f"search={top} is no folder; name those that hold runs and exports")
        for root, names, _ in os.walk(top):
            folder = Path(root)
            names[:] = sorted(name for name in names if not name.startswith("."))
            if CHECKPOINTS in names:
                names.remove(CHECKPOINTS)
                if any((folder / CHECKPOINTS).glob(f"step_*/{MANIFEST}")):
                    found.append(read_run(folder))
            elif (export := read_export(folder)) is not None:
                found.append(export)
                names.clear()
    return found


def origin_of_path(path: Path) -> Origin:
    """The weights behind a path that a run names: a checkpoint, a run, or an export, which need not exist any more."""
    path = path.resolve()
    if (run := run_folder_of(path)) != path:
        return Origin(run.name, _step(path.name))
    export = read_export(path) if path.is_dir() else None
    return Origin(path.name, None) if export is None else export.origins[0]


def _origin(source: Source) -> Origin:
    """From what an export or a checkpoint says: NAME/step_00000100, the name of another export, or only a path."""
    if "name" not in source:
        return origin_of_path(Path(source["path"]))
    name, _, checkpoint = str(source["name"]).partition("/")
    step = source.get("step")
    return Origin(name, _step(checkpoint) if step is None else int(step), source.get("skipped_sha256"))


def _step(name: str) -> int | None:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdigit() else None


class FirstSteps(NamedTuple):
    """The first step that read something, and the first whose update it went into; None for none. skipped: what the
    newest checkpoint of the run has not learned from."""

    read: int
    learned: int | None
    skipped: Skipped | None = None

    def holds(self, weights: Origin) -> bool:
        """Whether these weights of the run are late enough, or of a step that nobody knows."""
        if weights.step is None:
            return True
        at = self.learned if self.is_known(weights) else self.read
        return at is not None and weights.step >= at

    def is_known(self, weights: Origin) -> bool:
        """Whether the weights left out what the run's newest checkpoint says, or nothing of this was left out."""
        if self.read == self.learned:
            return weights.step is not None or self == EVERYTHING
        if self.skipped is None or weights.step is None or weights.skipped_sha256 is None:
            return False
        return weights.skipped_sha256 == self.skipped.sha256(weights.step)


EVERYTHING = FirstSteps(0, 0)


def descendants(first_steps: Mapping[Path, FirstSteps], models: Sequence[Model]) -> dict[str, list[dict[str, Any]]]:
    """Everything that learned from what a run of `first_steps` (folder -> steps) saw at these steps first.

    models: the runs of `first_steps` are among them. Returns checkpoints, exports and runs, with where each has it
    from; `assumed` where none of its origins says what it left out, which counts as having learned from all that was
    read.
    """
    first_by_place = {folder.resolve(): first for folder, first in first_steps.items()}
    own = [model for model in models if model.place in first_by_place]
    seen = {model.place: first_by_place[model.place]._replace(skipped=model.skipped) for model in own}
    began_from: dict[str, list[tuple[Model, Origin]]] = {}  # name of the origin -> what was made of it
    for model in models:
        for origin in model.origins:
            began_from.setdefault(origin.name, []).append((model, origin))
    assumed: dict[Path, bool] = {}  # of what was made of others, by its nearest origins
    level = own
    while level:
        made: dict[Path, Model] = {}
        for parent in level:
            from_parent = seen[parent.place]
            for child, origin in began_from.get(parent.name, ()):
                # A run may have its origin's name, and is none of its own.
                is_itself = child.place == parent.place
                if is_itself or seen.get(child.place) == EVERYTHING or not from_parent.holds(origin):
                    continue
                assumed[child.place] = assumed.get(child.place, True) and not from_parent.is_known(origin)
                made[child.place] = child
        seen |= dict.fromkeys(made, EVERYTHING)
        level = list(made.values())
    checkpoints, exports, runs = [], [], []
    for model in models:
        if (saw := seen.get(model.place)) is None:
            continue
        for weights, path in model.checkpoints.items():
            if saw.holds(weights):
                is_assumed = assumed.get(model.place, not saw.is_known(weights))
                named = {"path": str(path), "run": model.name, "step": weights.step}
                checkpoints.append({**named, "assumed": is_assumed})
        origins = [{"name": origin.name, "step": origin.step} for origin in model.origins]
        made_of = {"path": str(model.folder), "from": origins, "assumed": assumed.get(model.place)}
        if not model.checkpoints:
            exports.append({**made_of, "from": origins[0]["name"], "step": origins[0]["step"]})
        elif model.place not in first_by_place:
            runs.append(made_of)
    return {"checkpoints": checkpoints, "exports": exports, "runs": runs}
