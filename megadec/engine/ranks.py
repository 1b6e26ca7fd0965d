"""The processes that train together, seen from one of them: sums and values over all ranks."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from megadec.common.errors import TrainingError
from megadec.common.ranks import rank


class LostRankError(TrainingError):
    """A peer has ended, or is not reached any more."""


@dataclass(frozen=True)
class Ranks:
    """The processes that train together, seen from one of them. Every method is collective."""

    rank: int
    world_size: int
    device: torch.device

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        """The sums of each value over all ranks, in float64, in one message.

        Raises LostRankError when a rank is lost.
        """
        sums = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.world_size > 1:
            with lost_ranks("adding up numbers"):
                torch.distributed.all_reduce(sums)
        return [float(value) for value in sums.tolist()]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.world_size > 1:
            with lost_ranks("waiting for rank 0"):
                torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, on every rank."""
        values = [value] * self.world_size
        if self.world_size > 1:
            with lost_ranks("exchanging values"):
                torch.distributed.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank is here."""
        self.sum_over_ranks([0.0])


@contextlib.contextmanager
def lost_ranks(doing: str) -> Iterator[None]:
    """Turn the transport's complaint about a vanished peer into a LostRankError."""
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("Connection", "gloo", "NCCL")):
            raise
        words = f"rank {rank()}: another rank was lost while {doing}; its own message says why"
        raise LostRankError(words) from error
