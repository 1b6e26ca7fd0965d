"""Which weights saw which documents: from a step to its documents, from a document to steps, checkpoints and exports.

In: a run's folder, ids or a step, and folders in which to look for other runs and for exports. Out: plain values for
JSON. What a run saw is worked out from the data state in its newest checkpoint (data/places.py), not replayed. What
began from weights that saw it saw it too: exports, exports of exports, and runs that name such a model as their initial
one or go on from its checkpoint. Trade-off: manifests name models by run and step, so two runs of one name are both
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
from megadec.data.index import DataSet
from megadec.data.order import Order
from megadec.data.places import find_documents, sightings, windows_with
from megadec.data.stream import TrainStream
from megadec.data.windows import plan_windows
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


class Trained:
    """What one run was trained on, open for questions.

    Raises ConfigError for a run that reads no shards, ShardError when the shards are not those of its checkpoints.
    """

    def __init__(self, run: RunRecord, cache_folder: Path | None = None) -> None:
        state = run.manifest["data"]
        stream = state.get("stream", {}) if isinstance(state, dict) else {}
        if "packing" not in stream:
            raise ConfigError(f"{run.folder} was not trained on shards, and only these name their documents")
        self.run = run
        weights = run.manifest["run"]["data"]["train"]
        self.sets = [(DataSet.open(folder), float(weight)) for folder, weight in weights.items()]
        self.rows: int = stream["sequences_per_step"]
        self.stream = TrainStream(
            self.sets, stream["row_tokens"], stream["packing"], stream["seed"], self.rows, cache_folder
        )
        self.stream.check(state)
        self.plans = [
            plan_windows(data, stream["row_tokens"], stream["packing"], cache_folder) for data, _ in self.sets
        ]
        self.order = Order([plan.windows for plan in self.plans], [weight for _, weight in self.sets], stream["seed"])

    def documents_of_step(self, step: int) -> list[dict[str, Any]]:
        """The rows of a step, counted from 1: row, set, window, and the documents in their order.

        Raises ConfigError for a step that is none.
        """
        if step < 1:
            raise ConfigError(f"step={step} is not at least 1: steps are counted as metrics.jsonl counts them")
        rows = []
        for row, window in enumerate(self.stream.windows_of(step - 1)):
            spans = self.stream.documents_of(window)
            rows.append(
                {
                    "row": row,
                    "set": str(self.sets[window.data_set][0].folder),
                    "window": window.window,
                    "documents": [{"id": span.id, "source": span.source, "tokens": span.tokens} for span in spans],
                }
            )
        return rows

    def steps_of_documents(self, ids: Sequence[str], until_step: int | None = None) -> list[dict[str, Any]]:
        """Where documents are in the sets, and every step and row up to `until_step` (the newest checkpoint's) that
        held a part of them; a document that is in no set is found nowhere."""
        steps = self.run.last_step if until_step is None else until_step
        answers: dict[str, dict[str, Any]] = {id: {"id": id, "found": [], "seen": []} for id in ids}
        for number, (data, _) in enumerate(self.sets):
            for id, spans in find_documents(data, ids).items():
                for span in spans:
                    windows = windows_with(self.plans[number], span)
                    place = {"set": str(data.folder), "first_token": span.first_token, "tokens": span.tokens}
                    answers[id]["found"].append({**place, "source": span.source, "windows": windows})
                    seen = sightings(self.order, number, windows, steps, self.rows)
                    answers[id]["seen"] += [
                        {"step": s.step, "row": s.row, "set": str(data.folder), "window": s.window} for s in seen
                    ]
        for answer in answers.values():
            answer["seen"].sort(key=lambda one: (one["step"], one["row"]))
        return list(answers.values())


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


def withdrawal(
    folders: Sequence[Path],
    ids: Sequence[str],
    runs: Sequence[RunRecord],
    exports: Sequence[ExportRecord],
    until_step: int | None = None,
) -> dict[str, Any]:
    """Everything that documents went into: by run where they were seen, and what was made of it.

    runs, exports: what was found elsewhere. Raises as `read_run` and `Trained`.
    """
    own = [read_run(folder) for folder in folders]
    documents = {str(run.folder): Trained(run).steps_of_documents(ids, until_step) for run in own}
    first = {}
    for run in own:
        steps = [one["step"] for document in documents[str(run.folder)] for one in document["seen"]]
        if steps:
            first[run.folder] = min(steps)
    known = {run.folder.resolve(): run for run in (*runs, *own)}
    made = descendants(first, list(known.values()), exports)
    return {"documents": documents, "first_steps": {str(folder): step for folder, step in first.items()}, **made}


SHOWN = 12


def words(found: Mapping[str, Any]) -> str:
    """The answer for a person at a terminal, long lists cut short."""
    return "\n".join(_step_words(found) if "step" in found else _withdrawal_words(found))


def _step_words(found: Mapping[str, Any]) -> Iterator[str]:
    for folder, rows in found["runs"].items():
        yield f"{folder}, step {found['step']}: {len(rows)} rows"
        for row in rows:
            ids = ", ".join(document["id"] for document in row["documents"])
            yield f"  row {row['row']}: {row['set']} window {row['window']}: {ids}"


def _withdrawal_words(found: Mapping[str, Any]) -> Iterator[str]:
    for folder, documents in found["documents"].items():
        yield f"{folder}:"
        for document in documents:
            if not document["found"]:
                yield f"  {document['id']}: in none of the run's data sets"
                continue
            places = [f"{place['set']} ({place['tokens']} tokens)" for place in document["found"]]
            yield f"  {document['id']}: in {', '.join(places)}; seen {len(document['seen'])} time(s)"
            seen = [f"step {one['step']} row {one['row']}" for one in document["seen"]]
            if seen:
                more = f" and {len(seen) - SHOWN} more (--json true shows all)" if len(seen) > SHOWN else ""
                yield f"    {', '.join(seen[:SHOWN])}{more}"
    if not found["first_steps"]:
        yield "no step of these runs has seen them: nothing is to be withdrawn"
        return
    for kind in ("checkpoints", "exports", "runs"):
        yield f"{kind} that saw them: {'none found' if not found[kind] else ''}".rstrip()
        for one in found[kind]:
            origin = one["from"] if kind == "exports" else None
            yield f"  {one['path']}" + (f" (from {origin}, step {one['step']})" if origin else "")
