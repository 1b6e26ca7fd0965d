"""The token batch, what the decoder eats.

In: windows. Out: five tensors of one shape, a sequence for each. Three of the five could be found again on the device
from the ids; making them here, in the loader's thread, keeps the decoder free of rules about documents.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from megadec.data.windows import WindowPlan

PADDING_ID = 0
TARGETS = ("targets_BS", "weights_BS")


@dataclass(frozen=True)
class Batch(ABC):
    """What training needs of a micro-batch. Shapes: B sequences, S tokens of each."""

    ids_BS: Tensor
    """int64: what the model reads first."""
    targets_BS: Tensor
    """int64: the token that is predicted at each place; 0 on padding."""
    weights_BS: Tensor
    """float32: weight of each prediction in the loss; 0 on padding and where the target begins another document."""

    @property
    def valid_tokens(self) -> int:
        """How many predictions count in the loss (waits for the device where the batch is on one)."""
        return int((self.weights_BS > 0).sum())

    @property
    @abstractmethod
    def squared_document_tokens(self) -> int:
        """The squared lengths of what attention mixes, added up."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on `device`."""
        return type(self)(*(tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors()))

    def pin(self) -> Self:
        """The batch in page-locked memory, which copies to a GPU beside computation."""
        return type(self)(*(tensor.pin_memory() for tensor in self.tensors()))

    def tensors(self) -> list[Tensor]:
        """The tensors in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    def model_arguments(self) -> dict[str, Tensor]:
        """All but the ids, under the names of the model's keyword arguments."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "ids_BS"}

    def context_arguments(self) -> dict[str, Tensor]:
        """`model_arguments` without what is predicted: the model then gives logits."""
        return {name: value for name, value in self.model_arguments().items() if name not in TARGETS}


@dataclass(frozen=True)
class TokenBatch(Batch):
    """Sequences of a data set's windows; a target is the next token of the same document."""

    positions_BS: Tensor
    """int64: position in the document, or in the part of it that is in this sequence; padding counts from 0 too."""
    documents_BS: Tensor
    """int32: running number of the document in the sequence, from 0; padding has a number of its own. Of the whole
    sequence also where the others are a part of it."""

    def part_of_sequences(self, part: int, parts: int) -> "TokenBatch":
        """Part `part` of `parts` equal ones of each sequence, [B, S / parts]; only the documents stay whole.

        Targets, weights and positions are cut and not made anew: the last token of a part predicts the first of the
        next one, and the sums over all parts are those of the whole.
        """
        tokens = self.ids_BS.shape[1] // parts
        ids_BP, targets_BP, weights_BP, positions_BP = (
            tensor[:, part * tokens : (part + 1) * tokens].contiguous() for tensor in self.tensors()[:-1]
        )
        return TokenBatch(ids_BP, targets_BP, weights_BP, positions_BP, self.documents_BS)

    def sequences(self, first: int, stop: int) -> "TokenBatch":
        """Sequences first, ..., stop - 1, sharing memory with this batch."""
        return TokenBatch(*(tensor[first:stop] for tensor in self.tensors()))

    @property
    def squared_document_tokens(self) -> int:
        """The sum over the documents of their squared length in tokens; padding counts as a document."""
        # A document of n tokens has positions 0 to n - 1, and 1 + 3 + ... + (2n - 1) = n squared.
        return int((2 * self.positions_BS + 1).sum())


def assemble(windows: Sequence[tuple[WindowPlan, int] | None], sequence_length: int, bos_id: int) -> TokenBatch:
    """A batch of the given (plan, window) pairs, a sequence for each; None is one of padding."""
    shape = (len(windows), sequence_length)
    ids_BS, targets_BS = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    piece_starts: list[tuple[int, int]] = []
    paddings: list[tuple[int, int]] = []
    for row, source in enumerate(windows):
        at = 0
        ids_S, targets_S = ids_BS[row], targets_BS[row]
        if source is not None:
            plan, window = source
            for first, predictions in plan.pieces(window):
                tokens = plan.data.tokens_at(first, predictions + 1)
                ids_S[at : at + predictions] = tokens[:-1]
                targets_S[at : at + predictions] = tokens[1:]
                if at:
                    piece_starts.append((row, at))
                at += predictions
        if at < sequence_length:
            ids_S[at:] = targets_S[at:] = PADDING_ID
            paddings.append((row, at))
    starts_BS = ids_BS == bos_id
    for row, at in piece_starts + paddings:
        starts_BS[row, at] = True
    weights_BS = (targets_BS != bos_id).astype(np.float32)
    for row, at in paddings:
        starts_BS[row, at + 1 :] = False
        weights_BS[row, at:] = 0.0
    arrays = (ids_BS, targets_BS, weights_BS, *boundaries(starts_BS))
    return TokenBatch(*(torch.from_numpy(array) for array in arrays))


def boundaries(starts_BS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (int64) and document numbers (int32) of sequences, from where in them a document begins (bool)."""
    rows, tokens = starts_BS.shape
    # The first place of a sequence counts from 0 whether a document begins there or goes on.
    starts_BS[:, 0] = True
    begins = np.flatnonzero(starts_BS)
    lengths = np.diff(begins, append=rows * tokens)
    # Few documents, many tokens: made once a document and repeated; sums along the rows took three times as long.
    numbers = np.arange(len(begins), dtype=np.int32)
    first_of_row = np.searchsorted(begins, begins // tokens * tokens).astype(np.int32)
    positions = np.arange(rows * tokens) - np.repeat(begins, lengths)
    documents = np.repeat(numbers - first_of_row, lengths)
    return positions.reshape(rows, tokens), documents.reshape(rows, tokens)
