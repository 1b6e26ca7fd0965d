"""Labelled texts -> token batches: whole texts packed into sequences, a label's number at the last token of each.

A text sees nothing of its neighbors (documents_BS) and counts its own positions, so a packed text is computed as it
would be alone. Texts are packed anew for each epoch, so that neighbors change, by best fit over their lengths, so that
every epoch has equally many sequences and step N needs no list of what came before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np
import torch

from megadec.common.errors import InputError
from megadec.data.batch import PADDING_ID, TokenBatch, boundaries
from megadec.data.packing import pack
from megadec.data.resumable import ORDER_RULE, ResumableStream, share_of_rank
from megadec.data.shuffle import VERSION as ORDER_VERSION
from megadec.data.shuffle import Shuffle
from megadec.finetune.examples import LabelledSet

# Changes when the same texts would be packed in another way.
PACKING_VERSION = 1
KEPT_EPOCHS = 2


def pack_texts(texts: np.ndarray, lengths: np.ndarray, sequence_length: int) -> list[np.ndarray]:
    """Whole texts into sequences by best fit: the numbers (of `texts`) in each sequence, longest first.

    texts: int64 numbers; lengths: int64 [texts] in tokens, none above sequence_length. Which of several equally long
    texts shares a sequence with which follows their order in `texts`.
    """
    # pack() counts predictions, one less than the tokens that it is told.
    packed = pack(texts, lengths + 1, sequence_length)
    return np.split(packed.first, packed.sequence_ends[1:-1])


def assemble_texts(
    data: LabelledSet,
    sequences: Sequence[np.ndarray],
    sequence_length: int,
    weights: Sequence[float] | None = None,
    prefix_weight: float = 0.0,
) -> TokenBatch:
    """A batch of the given texts by sequence. weights: the loss weight of each label, 1 when not given.

    prefix_weight: the label is asked at the earlier tokens of a text too (target replication, Lipton et al., arXiv
    1511.03677), `<s>` left out; they share this part of the text's weight evenly, beside the 1 of its last token.
    """
    of_label = np.ones(len(data.names)) if weights is None else np.asarray(weights)
    shape = (len(sequences), sequence_length)
    ids_BS, targets_BS = np.full(shape, PADDING_ID, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    weights_BS, starts_BS = np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    for sequence, texts in enumerate(sequences):
        lengths = data.lengths[texts]
        ends = np.cumsum(lengths)
        used = int(ends[-1]) if len(ends) else 0
        if used:
            ids_BS[sequence, :used] = np.concatenate([data.ids(text) for text in texts.tolist()])
        labels = data.labels[texts]
        if prefix_weight and used:
            targets_BS[sequence, :used] = np.repeat(labels, lengths)
            of_prefix = of_label[labels] * prefix_weight / np.maximum(lengths - 2, 1)
            weights_BS[sequence, :used] = np.repeat(of_prefix, lengths)
            weights_BS[sequence, ends - lengths] = 0.0
        targets_BS[sequence, ends - 1] = labels
        weights_BS[sequence, ends - 1] = of_label[labels]
        starts_BS[sequence, ends - lengths] = True
        starts_BS[sequence, used : used + 1] = True  # padding is one more document
    arrays = (ids_BS, targets_BS, weights_BS, *boundaries(starts_BS))
    return TokenBatch(*(torch.from_numpy(array) for array in arrays))


@dataclass(eq=False)
class ClassifyStream(ResumableStream):
    """The endless sequence of training steps over a labelled set; a pure function of its arguments.

    Every text is seen once an epoch; a step may hold the end of one epoch and the beginning of the next.

    weights: of each label in the loss. prefix_weight: see `assemble_texts`.
    """

    data: LabelledSet
    weights: list[float]
    sequence_length: int
    seed: int
    global_batch_size: int
    prefix_weight: float = 0.0

    def __post_init__(self) -> None:
        self._text_order = Shuffle([self.data.texts], [1.0], self.seed)
        self._epoch = lru_cache(KEPT_EPOCHS)(self._pack_epoch)
        self._order = Shuffle([len(self._packed(0))], [1.0], self.seed)

    def batch(
        self, step: int, rank: int = 0, world_size: int = 1, micro_batch_size: int | None = None
    ) -> list[TokenBatch]:
        """This rank's sequences of step `step` (from 0) in micro-batches of `micro_batch_size` (None: one for all).

        Raises ConfigError when the step does not divide by the micro-batch and the ranks.
        """
        own, micro = share_of_rank(self.global_batch_size, world_size, micro_batch_size)
        first = step * self.global_batch_size + rank * own
        sequences = self.sequences_at(first, own)
        whole = assemble_texts(self.data, sequences, self.sequence_length, self.weights, self.prefix_weight)
        return [whole.sequences(start, start + micro) for start in range(0, own, micro)]

    def documents(self, step: int, rank: int = 0, world_size: int = 1) -> list[str]:
        """The texts in this rank's sequences of step `step` (from 0) by their numbers; they have no other names."""
        own = self.global_batch_size // world_size
        sequences = self.sequences_at(step * self.global_batch_size + rank * own, own)
        return [f"text {number}" for texts in sequences for number in texts.tolist()]

    def sequences_at(self, first: int, count: int) -> list[np.ndarray]:
        """The texts in the sequences at places first, ..., first + count - 1 of the sequence."""
        places = (divmod(place, self.windows_per_epoch) for place in range(first, first + count))
        return [self._epoch(epoch)[sequence] for epoch, sequence in places]

    def description(self) -> dict[str, Any]:
        """Everything the sequence is a function of, as a JSON value."""
        return {
            "order_version": ORDER_VERSION,
            "packing_version": PACKING_VERSION,
            "sequence_length": self.sequence_length,
            "seed": self.seed,
            "global_batch_size": self.global_batch_size,
            "labels": list(self.data.names),
            "weights": self.weights,
            "prefix_weight": self.prefix_weight,
            "texts": self.data.texts,
            "sha256": self.data.sha256,
        }

    def raise_difference(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> NoReturn:
        """Raise InputError when the texts are not those of the checkpoint, ConfigError when a setting is another."""
        if (saved.get("sha256"), saved.get("texts")) != (now["sha256"], now["texts"]):
            raise InputError(
                f"{self.data.path} has {now['texts']} labelled texts {now['sha256'][:12]}..., the checkpoint was"
                f" trained on {saved.get('texts')} {str(saved.get('sha256'))[:12]}...: {ORDER_RULE}"
            )
        super().raise_difference(saved, now)

    def _packed(self, epoch: int) -> list[np.ndarray]:
        """The sequences of an epoch in the order of packing."""
        _, texts = self._text_order.at(epoch * self.data.texts, self.data.texts)
        return pack_texts(texts, self.data.lengths[texts], self.sequence_length)

    def _pack_epoch(self, epoch: int) -> list[np.ndarray]:
        sequences = self._packed(epoch)
        _, order = self._order.at(epoch * self.windows_per_epoch, self.windows_per_epoch)
        return [sequences[sequence] for sequence in order.tolist()]
