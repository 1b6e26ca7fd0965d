"""Batches of pairs, and the stream of them: the batch of step N, on any number of ranks.

Sequences are padded to the longest of their micro-batch, and sorted by length within a rank's share of the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megadec.data.batch import PADDING_ID, Batch
from megadec.data.pairs import PairSet
from megadec.data.resumable import ResumableStream, share_of_rank
from megadec.data.shuffle import VERSION as ORDER_VERSION
from megadec.data.shuffle import Shuffle

STREAM_VERSION = 1


@dataclass(frozen=True)
class PairBatch(Batch):
    """Targets behind `<s>`, and the sources beside them. Shapes: B pairs, S target tokens, T source tokens."""

    source_ids_BT: Tensor
    """int64: the source and `</s>`."""
    source_lengths_B: Tensor
    """int64: what is not padding of it, from 1."""

    @property
    def squared_document_tokens(self) -> int:
        """Source tokens times target tokens of each pair, added up: what cross-attention compares."""
        return int(((self.weights_BS > 0).sum(dim=1) * self.source_lengths_B).sum())


def assemble_pairs(pairs: PairSet, numbers: Sequence[int | None]) -> PairBatch:
    """A batch of these pairs, padded on the right; a number that is None is a sequence of padding without weight."""
    sources = [pairs.sources[n] if n is not None else pairs.sources.values[:1] for n in numbers]
    targets = [pairs.targets[n] if n is not None else pairs.targets.values[:0] for n in numbers]
    source_lengths_B = np.array([len(ids) for ids in sources], dtype=np.int64)
    # A prediction more than the target has tokens: </s>.
    predictions_B = np.array([0 if n is None else len(t) + 1 for n, t in zip(numbers, targets, strict=True)])
    source_ids_BT = np.full((len(numbers), int(source_lengths_B.max())), PADDING_ID, dtype=np.int64)
    ids_BS = np.full((len(numbers), max(1, int(predictions_B.max()))), PADDING_ID, dtype=np.int64)
    targets_BS = ids_BS.copy()
    for row, (number, source, target) in enumerate(zip(numbers, sources, targets, strict=True)):
        source_ids_BT[row, : len(source)] = source
        if number is not None:
            ids_BS[row, 0], targets_BS[row, len(target)] = pairs.bos_id, pairs.eos_id
            ids_BS[row, 1 : len(target) + 1] = targets_BS[row, : len(target)] = target
    weights_BS = (np.arange(ids_BS.shape[1]) < predictions_B[:, None]).astype(np.float32)
    arrays = (ids_BS, targets_BS, weights_BS, source_ids_BT, source_lengths_B)
    return PairBatch(*(torch.from_numpy(array) for array in arrays))


class PairStream(ResumableStream):
    """The endless sequence of training steps over a `PairSet`; a pure function of its arguments. Raises ConfigError."""

    data_keys = ("pairs", "pairs_sha256")

    def __init__(self, pairs: PairSet, seed: int, global_batch_size: int) -> None:
        self.pairs, self.seed, self.global_batch_size = pairs, seed, global_batch_size
        self._order = Shuffle([len(pairs)], [1.0], seed)
        self._lengths = (np.diff(pairs.targets.starts), np.diff(pairs.sources.starts))

    def batch(
        self, step: int, rank: int = 0, world_size: int = 1, micro_batch_size: int | None = None
    ) -> list[PairBatch]:
        """This rank's share of step `step` (from 0) as micro-batches of `micro_batch_size` sequences (None: one).

        Raises ConfigError when the step does not divide by the micro-batch and the ranks.
        """
        own, micro = share_of_rank(self.global_batch_size, world_size, micro_batch_size)
        numbers = self.pairs_of(step)[rank * own : (rank + 1) * own]
        targets, sources = self._lengths
        ordered = sorted(numbers, key=lambda number: (targets[number], sources[number], number))
        return [assemble_pairs(self.pairs, ordered[first : first + micro]) for first in range(0, own, micro)]

    def documents(self, step: int, rank: int = 0, world_size: int = 1) -> list[str]:
        """This rank's pairs of step `step` (from 0) by their numbers; they have no other names."""
        own = self.global_batch_size // world_size
        return [f"pair {number}" for number in self.pairs_of(step)[rank * own : (rank + 1) * own]]

    def pairs_of(self, step: int) -> list[int]:
        """The numbers of the pairs of a step, over all ranks."""
        _, numbers = self._order.at(step * self.global_batch_size, self.global_batch_size)
        found: list[int] = numbers.tolist()
        return found

    def description(self) -> dict[str, Any]:
        """Everything the sequence is a function of, as a JSON value."""
        return {
            "stream_version": STREAM_VERSION,
            "order_version": ORDER_VERSION,
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "pairs": len(self.pairs),
            "pairs_sha256": self.pairs.sha256,
        }
