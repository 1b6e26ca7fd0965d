"""What every stream of batches has in common: a rank's part of a step, and the state that a checkpoint keeps."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from megadec.common.errors import ConfigError, ShardError
from megadec.data.shuffle import Shuffle

if TYPE_CHECKING:  # a run's request is checked without torch
    from megadec.data.batch import Batch

ORDER_RULE = "the order of the sequences depends on it, so the run cannot go on from this state"


class RankPosition(NamedTuple):
    """Where a rank stands when sequences are cut over `parts` ranks: it holds part `part` of each of its group's
    sequences."""

    group: int
    groups: int
    part: int
    parts: int


def rank_position(rank: int, world_size: int, sequence_parallel_size: int) -> RankPosition:
    """Neighbours share sequences: ranks 0, ..., sequence_parallel_size - 1 are the first group.

    Raises ConfigError when the groups do not divide the ranks.
    """
    check_groups(world_size, sequence_parallel_size)
    group, part = divmod(rank, sequence_parallel_size)
    return RankPosition(group, world_size // sequence_parallel_size, part, sequence_parallel_size)


def check_groups(world_size: int, sequence_parallel_size: int) -> None:
    """Raise ConfigError when the ranks are not so many whole groups."""
    if sequence_parallel_size < 1 or world_size % sequence_parallel_size:
        raise ConfigError(
            f"train.sequence_parallel_size={sequence_parallel_size} does not divide the {world_size} rank(s) of the run"
        )


def check_parts(sequence_length: int, sequence_parallel_size: int) -> None:
    """Raise ConfigError unless each rank of a group can hold an equal part of a sequence."""
    if sequence_length % sequence_parallel_size:
        raise ConfigError(
            f"data.sequence_length={sequence_length} is not a multiple of"
            f" train.sequence_parallel_size={sequence_parallel_size}: each rank of a group holds an equal part"
        )


def share_of_rank(
    global_batch_size: int, world_size: int, micro_batch_size: int | None, sequence_parallel_size: int = 1
) -> tuple[int, int]:
    """(sequences of one rank in a step, sequences of a micro-batch); micro_batch_size None takes all sequences at once.

    Raises ConfigError when the ranks are not whole groups that share sequences, or the step does not divide by the
    micro-batch and the groups.
    """
    check_groups(world_size, sequence_parallel_size)
    groups = world_size // sequence_parallel_size
    own = global_batch_size // groups
    micro = own if micro_batch_size is None else micro_batch_size
    if micro < 1 or global_batch_size % (groups * micro):
        raise ConfigError(
            f"train.global_batch_size={global_batch_size} is not a multiple of {micro} (train.micro_batch_size) x"
            f" {groups} ({'ranks' if sequence_parallel_size == 1 else 'ranks / train.sequence_parallel_size'})"
        )
    return own, micro


class ResumableStream(ABC):
    """A stream whose batches are a pure function of the step, so that a checkpoint keeps the step and what the function
    depends on."""

    global_batch_size: int
    _order: Shuffle
    data_keys: tuple[str, ...] = ()
    """The keys of the description that say which data there are; the others are settings."""

    @property
    def windows_per_epoch(self) -> int:
        """How many sequences an epoch has: until each was seen as often as its weight says."""
        return self._order.windows_per_epoch

    def at(self, step: int) -> "ResumableStream":
        """The stream that step `step` (from 0) is read from: this one, unless the stream changes on the way."""
        return self

    def place_of(self, step: int) -> int:
        """How many places of the sequence stand before those of step `step` (from 0)."""
        return step * self.global_batch_size

    @abstractmethod
    def batch(self, step: int, rank: int, world_size: int, micro_batch_size: int | None) -> "Sequence[Batch]":
        """This rank's share of step `step` (from 0) as micro-batches of `micro_batch_size` sequences (None: one)."""

    @abstractmethod
    def documents(self, step: int, rank: int, world_size: int) -> list[str]:
        """The ids of the documents (texts, pairs) in this rank's sequences of step `step` (from 0)."""

    @abstractmethod
    def description(self) -> dict[str, Any]:
        """Everything the order depends on, as a JSON value."""

    def raise_difference(self, saved: Mapping[str, Any], now: Mapping[str, Any]) -> NoReturn:
        """Raise the error that says what differs: ShardError for other data, ConfigError for another setting."""
        key = next(key for key in now if saved.get(key) != now[key])
        error = ShardError if key in self.data_keys else ConfigError
        raise error(f"{key} is {now[key]}, the checkpoint has {saved.get(key)}: {ORDER_RULE}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the order depends on."""
        return fingerprint_of(self.description())

    def state(self, step: int) -> dict[str, Any]:
        """What a checkpoint keeps before step `step`: integers, and what the order depends on; JSON."""
        windows = self.place_of(step)
        return {
            "step": step,
            "windows": windows,
            "epoch": windows // self.windows_per_epoch,
            "fingerprint": self.fingerprint,
            "stream": self.description(),
        }

    def check(self, state: Mapping[str, Any]) -> int:
        """The step to go on with from a saved `state`. Raises as `raise_difference` does when the order is another."""
        if state["fingerprint"] != self.fingerprint:
            self.raise_difference(state["stream"], self.description())
        return int(state["step"])


def fingerprint_of(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode("ascii")).hexdigest()
