"""What a run was trained on: from a step to its documents, from documents to the steps that read them.

In: a run's record, ids or a step. Out: plain values for JSON. What a run read is worked out from the data state in its
newest checkpoint (data/shuffle.py), not replayed, and so is what it did not learn from: steps without an update,
documents that were skipped, windows that touch a damaged shard. The run's shards have to be there still, unchanged, for
ids to be found in them; only one that no step has read may be missing. Where a checkpoint of an earlier version does
not say from which step on something was left out, it counts as learned from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from megadec.common.config import from_dict
from megadec.common.errors import ConfigError
from megadec.data.index import DataSet
from megadec.data.shard_cache import DamagedShardError, ShardCacheOptions
from megadec.data.shuffle import Shuffle
from megadec.data.stream import TrainStream, Window
from megadec.data.windows import CutPlan, is_lost, plan_windows
from megadec.lineage.graph import RunRecord

NO_UPDATE = "no_update"
SKIPPED = "skip_documents"
DAMAGED_SHARD = "damaged_shard"


class Trained:
    """What one run was trained on, open for questions.

    Remote shards are fetched as the run's `data.cache` says. cache_folder: where they are kept, in place of its folder.
    Raises ConfigError for a run that reads no shards, ShardError when the shards are not those of its checkpoints, and
    DamagedShardError when one is damaged that the run has read, or may have.
    """

    def __init__(self, run: RunRecord, cache_folder: Path | None = None) -> None:
        state = run.manifest["data"]
        stream = state.get("stream", {}) if isinstance(state, dict) else {}
        if "packing" not in stream:
            raise ConfigError(f"{run.folder} was not trained on shards, and only these name their documents")
        self.run = run
        self.skipped = run.skipped
        self._skipped = {start.first_step: frozenset(start.documents) for start in self.skipped.starts}
        self.rows: int = stream["global_batch_size"]
        self._packs = stream["packing"] == "best_fit"
        self._cache = _cache_of(run, cache_folder)
        weights = run.manifest["run"]["data"]["train"]
        # A checkpoint from before shards could be left out has no such list.
        self._newest_shards: list[list[str]] = state.get("skipped") or [[] for _ in weights]
        self.sets = [self._open(number, folder) for number, folder in enumerate(weights)]
        # best_fit packs what is there, the same in all steps; the windows of cut do not depend on what is left out.
        planned = [
            data.without(dict.fromkeys(data.numbers_of(self._newest_shards[number]), "")) if self._packs else data
            for number, data in enumerate(self.sets)
        ]
        weighted = [(data, float(weight)) for data, weight in zip(planned, weights.values(), strict=True)]
        sizes = (stream["sequence_length"], stream["packing"])
        self.stream = TrainStream(weighted, *sizes, stream["seed"], self.rows)
        self.stream.check(state)
        self.plans = [plan_windows(data, *sizes) for data in planned]
        self.order = Shuffle([plan.windows for plan in self.plans], [weight for _, weight in weighted], stream["seed"])
        self._plan_without = lru_cache(len(weights) * max(len(self.skipped.starts), 1))(self._make_plan_without)

    def documents_of_step(self, step: int) -> list[dict[str, Any]]:
        """The rows of a step, counted from 1: row, set, window, and the documents in their order. `skipped` of a row
        or a document: why the weights have not learned from it.

        Raises ConfigError for a step that is none.
        """
        if step < 1:
            raise ConfigError(f"step={step} is not at least 1: steps are counted as metrics.jsonl counts them")
        rows = []
        for row, window in enumerate(self.stream.windows_of(step - 1)):
            why = self._why(step, window)
            spans = [] if why == DAMAGED_SHARD else self.stream.documents_of(window)
            rows.append(
                {
                    "row": row,
                    "set": self.sets[window.data_set].folder,
                    "window": window.window,
                    "skipped": why,
                    "documents": [
                        {
                            "id": span.id,
                            "source": span.source,
                            "tokens": span.tokens,
                            "skipped": SKIPPED if self._is_skipped(step, span.id) else why,
                        }
                        for span in spans
                    ],
                }
            )
        return rows

    def steps_of_documents(self, ids: Sequence[str], until_step: int | None = None) -> list[dict[str, Any]]:
        """Where documents are in the sets, and every step and row up to `until_step` (the newest checkpoint's) that
        held a part of them: in `seen` where the weights learned from it, in `skipped` with `why` where they did not.

        A document that is in no set is found nowhere; `notes` say where the answer has limits.
        """
        steps = self.run.last_step if until_step is None else until_step
        answers: dict[str, dict[str, Any]] = {
            id: {"id": id, "found": [], "seen": [], "skipped": [], "notes": []} for id in ids
        }
        for number, data in enumerate(self.sets):
            for id, spans in data.find_documents(ids).items():
                for span in spans:
                    windows = self.plans[number].windows_with(span)
                    place = {"set": data.folder, "first_token": span.first_token, "tokens": span.tokens}
                    answers[id]["found"].append({**place, "source": span.source, "windows": windows})
                    for window in windows:
                        for at in self.order.places_of(number, window, steps * self.rows):
                            step, row = at // self.rows + 1, at % self.rows
                            one = {"step": step, "row": row, "set": data.folder, "window": window}
                            why = self._why(step, Window(number, window), id)
                            answers[id]["seen" if why is None else "skipped"].append(
                                one if why is None else one | {"why": why}
                            )
        for answer in answers.values():
            for name in ("seen", "skipped"):
                answer[name].sort(key=lambda one: (one["step"], one["row"]))
            answer["notes"] += self._notes(answer)
        return list(answers.values())

    def _why(self, step: int, window: Window, id: str | None = None) -> str | None:
        """Why the weights have not learned from a window, or from a document in it, at a step; None where they have."""
        start = self.skipped.start_of(step)
        shards = start.shards[window.data_set] if start is not None and not self._packs else ()
        if shards and is_lost(self._plan_without(window.data_set, shards), window.window):
            return DAMAGED_SHARD
        if id is not None and self._is_skipped(step, id):
            return SKIPPED
        return NO_UPDATE if self.skipped.no_update(step) else None

    def _is_skipped(self, step: int, id: str) -> bool:
        start = self.skipped.start_of(step)
        return start is not None and id in self._skipped[start.first_step]

    def _notes(self, answer: dict[str, Any]) -> Iterator[str]:
        if not answer["found"]:
            for data in self.sets:
                for number in data.skipped:
                    yield (
                        f"{data.folder}/{data.index['shards'][number]['name']} is damaged and was not searched; no step"
                        " has read it"
                    )
        unknown = [one["step"] for one in answer["seen"] if self.skipped.start_of(one["step"]) is None]
        skipped = answer["id"] in self.run.manifest.get("task", {}).get("skipped_documents", ())
        if unknown and (skipped or (any(self._newest_shards) and not self._packs)):
            yield (
                f"the checkpoints do not say what steps {min(unknown)} to {max(unknown)} went without, so these count"
                " as having learned from it"
            )

    def _open(self, data_set: int, folder: str) -> DataSet:
        """The set without what is damaged now, which no step may have read: ids could not be found there."""
        data = DataSet.open(folder, cache=self._cache, skip_damaged=True)
        damaged = dict(data.skipped)
        ever = {*self._newest_shards[data_set]}
        ever.update(sha256 for start in self.skipped.starts for sha256 in start.shards[data_set])
        for number in data.numbers_of(sorted(ever)):
            # Its size may be right and a byte of an id wrong.
            if number not in damaged and (wrong := data.place.examine(data.index["shards"][number], "hashes")):
                damaged[number] = wrong
        for number, wrong in damaged.items():
            sha256 = data.index["shards"][number]["sha256"]
            newest = sha256 in self._newest_shards[data_set]
            if not (newest if self._packs else self.skipped.always_without(data_set, sha256)):
                raise DamagedShardError(
                    f"{wrong} (steps of {self.run.folder} have read it, or may have, so ids must be found in it)"
                )
        return data.without(damaged)

    def _make_plan_without(self, data_set: int, shards: tuple[str, ...]) -> CutPlan:
        data = self.sets[data_set]
        return CutPlan(data.without(dict.fromkeys(data.numbers_of(shards), "")), self.stream.sequence_length)


def _cache_of(run: RunRecord, folder: Path | None) -> ShardCacheOptions:
    """How the run fetches remote shards, so that what it has kept is found and its bounds hold; or that in `folder`."""
    stated = run.manifest["run"]["data"].get("cache", {})
    cache = from_dict(ShardCacheOptions, stated, origin=f"data.cache of {run.folder}")
    return cache if folder is None else dataclasses.replace(cache, folder=str(folder))
