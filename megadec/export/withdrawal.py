"""Which weights saw which documents: from a step to its documents, from a document to everything that it went into.

In: a run's folder, ids or a step. Out: plain values for JSON, and words. What a run saw is worked out from the data
state in its newest checkpoint (data/places.py), not replayed; what was made of it is found by lineage.py. Trade-off:
the run's shards have to be there still, unchanged, for ids to be found in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megadec.common.errors import ConfigError
from megadec.data.index import DataSet
from megadec.data.order import Order
from megadec.data.places import find_documents, sightings, windows_with
from megadec.data.stream import TrainStream
from megadec.data.windows import plan_windows
from megadec.export.lineage import ExportRecord, RunRecord, descendants, read_run

SHOWN = 12


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
