"""A text's vector: the final normalized hidden states of our own decoder, pooled.

Computed part after part, as prompts are, so that what is generated at the same time goes on between the parts.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from megadec.common.errors import ExportError
from megadec.decoding.batch import NO_NUMBERS, PART_TOKENS
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.session import Feed

Pooling = Literal["mean", "last"]
PARTS_PER_STEP = 4


class Embedding:
    """The vector of `ids`, the first `skipped` of which count in no mean. `close` it in the end."""

    def __init__(self, model: PagedDecoder, ids: Sequence[int], skipped: int, pooling: Pooling) -> None:
        self._model, self._ids, self._skipped, self._pooling = model, ids, skipped, pooling
        self._sequence: Any = None
        self._fed = 0
        self._sum_H = torch.zeros(model.shape.hidden_size, dtype=torch.float64)

    @property
    def started(self) -> bool:
        """Whether there was room for it."""
        return self._sequence is not None

    def step(self) -> list[float] | None:
        """Feed a few parts more. The vector [H], of length 1, behind the last; None while there is more to do."""
        if self._sequence is None:
            self._sequence = self._model.begin(self._ids, 0, share=False)
        for _ in range(PARTS_PER_STEP if self._sequence is not None else 0):
            part = self._ids[self._fed : self._fed + PART_TOKENS]
            hidden_NH = self._model.hidden([Feed(self._sequence, part, 0)])
            counted_NH = hidden_NH[max(self._skipped - self._fed, 0) :] if self._pooling == "mean" else hidden_NH[-1:]
            total_H = counted_NH.double().sum(0).cpu()
            self._sum_H = total_H if self._pooling == "last" else self._sum_H + total_H
            self._fed += len(part)
            if self._fed == len(self._ids):
                return self._unit()
        return None

    def _unit(self) -> list[float]:
        norm = self._sum_H.norm()
        if not norm.isfinite():
            raise ExportError(NO_NUMBERS)
        unit: list[float] = (self._sum_H / norm.clamp_min(1e-12)).float().tolist()
        return unit

    def close(self) -> None:
        """Free the room."""
        if self._sequence is not None:
            self._model.end(self._sequence)
            self._sequence = None
