"""The stream of batches: the batch of step N, on any number of ranks; `stages.py` puts several behind each other.

The windows of a step are chosen for the whole job and cut into contiguous shares. With packing=cut, windows that touch
a shard that is left out become padding, and every other window keeps its step and place. With best_fit the windows
change, so which shards are left out is a part of the fingerprint.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, NoReturn

import numpy as np

from megadec.common.errors import ConfigError, ShardError
from megadec.data.batch import TokenBatch, assemble
from megadec.data.dataset import DataSet, DocumentSpan
from megadec.data.resumable import (
    ORDER_RULE,
    ResumableStream,
    check_parts,
    fingerprint_of,
    rank_position,
    share_of_rank,
)
from megadec.data.shuffle import VERSION as ORDER_VERSION
from megadec.data.shuffle import Shuffle
from megadec.data.skip_documents import SkippedDocuments, find_skipped, leave_out
from megadec.data.windows import PLAN_VERSION, WindowPlan, plan_windows

ORDER_CHUNK = 4096
STAGE_RULE = f"{ORDER_RULE}, but with a new stage from there on: --checkpoint.resume=CHECKPOINT --stage=NAME"


class Window(NamedTuple):
    """A window by the number of its data set in the stream and its number in that set."""

    data_set: int
    window: int


@dataclass(eq=False)
class TrainStream(ResumableStream):
    """The endless sequence of training steps over weighted data sets; a pure function of its arguments.

    A weight is how often the windows of a set are seen in an epoch. sequence_parallel_size: so many neighbouring ranks
    share sequences, each with a part of every one; skip_documents: ids of documents without weight in the loss
    (`data/skip_documents.py`); the order of windows does not depend on either. With packing="best_fit" the plan is
    built lazily, on first use, so that damaged shards can be found and dropped (`DataSet.without`) before. stage,
    first_step, first_place: of a stream that another goes over to (`next_stage`): its name, the steps before it, and
    where in its sequence it begins; steps are counted as in the whole run. Raises ConfigError for sizes, weights or
    packing that cannot be, ShardError if the data sets were tokenized with different tokenizers.
    """

    sets: Sequence[tuple[DataSet, float]]
    sequence_length: int
    packing: str
    seed: int
    global_batch_size: int
    sequence_parallel_size: int = 1
    skip_documents: Collection[str] = ()
    stage: str = ""
    first_step: int = 0
    first_place: int = 0

    def __post_init__(self) -> None:
        check_parts(self.sequence_length, self.sequence_parallel_size)
        first = self.sets[0][0]
        for other, _ in self.sets:
            if other.tokenizer_sha256 != first.tokenizer_sha256:
                raise ShardError(
                    f"{other.folder} was written with tokenizer {other.tokenizer_sha256[:12]}...,"
                    f" {first.folder} with {first.tokenizer_sha256[:12]}...: the sets of a run share one tokenizer"
                )
        self.skip_documents = frozenset(self.skip_documents)
        self._bos_id = first.bos_id
        self._chunk = lru_cache(4)(self._order_chunk)
        if self.packing != "best_fit":  # which reads every shard, and waits until somebody wants a window
            _ = self._order

    def next_stage(
        self,
        stage: str,
        first_step: int,
        sets: Sequence[tuple[DataSet, float]],
        *,
        sequence_length: int,
        packing: str,
        global_batch_size: int,
    ) -> "TrainStream":
        """The stream that this one goes over to after `first_step` steps.

        Where only the batch changes, it goes on in the same order from the same place. Else windows or their shares are
        others, and the order is a new one: with that of the seed, a set that stays would begin with the windows that it
        has just shown.
        """
        known = [(data.sha256, float(weight)) for data, weight in self.sets]
        same = [(data.sha256, float(weight)) for data, weight in sets] == known
        same = same and (sequence_length, packing) == (self.sequence_length, self.packing)
        drawn = np.random.SeedSequence([self.seed, first_step]).generate_state(1, np.uint64)[0]
        return replace(
            self,
            sets=sets,
            sequence_length=sequence_length,
            packing=packing,
            global_batch_size=global_batch_size,
            seed=self.seed if same else int(drawn >> np.uint64(1)),
            stage=stage,
            first_step=first_step,
            first_place=self.place_of(first_step) if same else 0,
        )

    def place_of(self, step: int) -> int:
        """How many places of the sequence stand before those of step `step` (from 0) of the run."""
        return self.first_place + (step - self.first_step) * self.global_batch_size

    @cached_property
    def _skipped(self) -> list[SkippedDocuments]:
        return find_skipped([data for data, _ in self.sets], self.skip_documents)

    def find_skipped(self) -> None:
        """Look up skip_documents now, not with the first batch. Raises ConfigError for an id that stands in no set,
        ShardError for a shard that cannot be read.
        """
        _ = self._skipped

    def take_skipped(self, found: list[SkippedDocuments]) -> None:
        """Take what `find_skipped` would look up, of each set, from one who has looked already."""
        self._skipped = found

    @cached_property
    def _plans(self) -> list[WindowPlan]:
        return [plan_windows(data, self.sequence_length, self.packing) for data, _ in self.sets]

    @cached_property
    def _order(self) -> Shuffle:  # type: ignore[override]  # mypy takes it for read-only
        return Shuffle([plan.windows for plan in self._plans], [weight for _, weight in self.sets], self.seed)

    def batch(
        self, step: int, rank: int = 0, world_size: int = 1, micro_batch_size: int | None = None
    ) -> list[TokenBatch]:
        """This rank's share of step `step` (from 0) as micro-batches of `micro_batch_size` sequences (None: one).

        With sequence_parallel_size, those are parts of sequences (`TokenBatch.part_of_sequences`). Raises ConfigError
        when the step does not divide by the micro-batch and the groups of ranks.
        """
        place = rank_position(rank, world_size, self.sequence_parallel_size)
        own, micro = share_of_rank(self.global_batch_size, world_size, micro_batch_size, self.sequence_parallel_size)
        windows = self.windows_at(self.place_of(step) + place.group * own, own)
        rows = [None if self.is_lost(one) else (self._plans[one.data_set], one.window) for one in windows]
        whole = assemble(rows, self.sequence_length, self._bos_id)
        leave_out(whole.weights_BS, rows, [self._skipped[which] for which, _ in windows])
        batches = [whole.sequences(first, first + micro) for first in range(0, own, micro)]
        return batches if place.parts == 1 else [batch.part_of_sequences(place.part, place.parts) for batch in batches]

    def documents(self, step: int, rank: int = 0, world_size: int = 1) -> list[str]:
        """The ids of the documents in this rank's sequences of step `step` (from 0), each once, in their order.

        Those that are skipped are not among them.
        """
        place = rank_position(rank, world_size, self.sequence_parallel_size)
        own = self.global_batch_size // place.groups
        windows = self.windows_at(self.place_of(step) + place.group * own, own)
        found = dict.fromkeys(span.id for window in windows for span in self.documents_of(window))
        return [one for one in found if one not in self.skip_documents]

    def windows_of(self, step: int) -> list[Window]:
        """The windows of a step, in their order over all ranks."""
        return self.windows_at(self.place_of(step), self.global_batch_size)

    def windows_at(self, first: int, count: int) -> list[Window]:
        """The windows at places first, ..., first + count - 1 of the sequence."""
        found: list[Window] = []
        while count > 0:
            number, start = divmod(first, ORDER_CHUNK)
            part = self._chunk(number)[start : start + count]
            found.extend(part)
            first, count = first + len(part), count - len(part)
        return found

    def plan(self, data_set: int) -> WindowPlan:
        """The windows of a set, by its number."""
        return self._plans[data_set]

    def is_lost(self, window: Window) -> bool:
        """Whether the sequence of a window is all padding, because it touches a shard that is left out."""
        return window.window in self._plans[window.data_set].lost

    def documents_of(self, window: Window) -> list[DocumentSpan]:
        """The documents that a window holds, in their order; none where it is lost."""
        return [] if self.is_lost(window) else self._plans[window.data_set].documents_of(window.window)

    def state(self, step: int) -> dict[str, Any]:
        """As in every stream, and the shards that it goes without."""
        return {**super().state(step), "skipped": self.skipped_shards()}

    def skipped_shards(self) -> list[list[str]]:
        """By set, the sha256 of each shard that is left out."""
        return [shards_left_out(data) for data, _ in self.sets]

    def description(self) -> dict[str, Any]:
        """Everything the sequence is a function of, as a JSON value."""
        begins = {"first_step": self.first_step, "first_place": self.first_place} if self.first_step else {}
        return {
            **begins,
            "order_version": ORDER_VERSION,
            "plan_version": PLAN_VERSION,
            "sequence_length": self.sequence_length,
            "packing": self.packing,
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "sets": [
                self._description_of(data, weight, plan)
                for (data, weight), plan in zip(self.sets, self._plans, strict=True)
            ],
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the sequence depends on; the names of the folders are not among it."""
        description = self.description()
        nameless = [{key: value for key, value in one.items() if key != "name"} for one in description["sets"]]
        return fingerprint_of({**description, "sets": nameless})

    def raise_difference(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> NoReturn:
        """Raise ShardError when the data sets are not the checkpoint's, ConfigError when a setting is another."""
        for key in now:
            if key != "sets" and saved.get(key) != now[key]:
                raise ConfigError(f"{key} is {now[key]}, the checkpoint has {saved.get(key)}: {STAGE_RULE}")
        if (count := len(now["sets"])) != (before := len(saved["sets"])):
            raise ConfigError(f"data.train has {count} sets, the checkpoint {before}: {STAGE_RULE}")
        for number, (was, current) in enumerate(zip(saved["sets"], now["sets"], strict=True)):
            name = f"data set {number} ({current['name']})"
            if was["sha256"] != current["sha256"]:
                raise ShardError(
                    f"{name} has the contents {current['sha256'][:12]}..., the checkpoint was trained on"
                    f" {was['sha256'][:12]}... ({was['name']}): {STAGE_RULE}"
                )
            if (gone := was.get("skipped", [])) != (now_gone := current.get("skipped", [])):
                raise ShardError(
                    f"{name} goes without {len(now_gone)} damaged shard(s), the checkpoint went without {len(gone)}:"
                    " data.packing=best_fit packs the documents that are there, so the run cannot go on from this state"
                    " with others; bring the shards back to what they were"
                )
            if (weight := current["weight"]) != was["weight"]:
                raise ConfigError(f"the weight of {name} is {weight}, the checkpoint has {was['weight']}: {STAGE_RULE}")
        raise ConfigError(f"the stream of the checkpoint cannot be compared with this one: {STAGE_RULE}")

    def _description_of(self, data: DataSet, weight: float, plan: WindowPlan) -> dict[str, Any]:
        known = {"name": data.name, "sha256": data.sha256, "weight": float(weight), "windows": plan.windows}
        return {**known, "skipped": shards_left_out(data)} if self.packing == "best_fit" and data.skipped else known

    def _order_chunk(self, number: int) -> list[Window]:
        sets, windows = self._order.at(number * ORDER_CHUNK, ORDER_CHUNK)
        return [Window(*pair) for pair in zip(sets.tolist(), windows.tolist(), strict=True)]


def shards_left_out(data: DataSet) -> list[str]:
    """The sha256 of each shard that is left out, as the index has it."""
    return [data.index["shards"][number]["sha256"] for number in data.skipped]
