"""What every stream of batches has in common: a rank's share of a step, and the state that a checkpoint keeps.

In come a step's rows and the ranks, out come this rank's rows and micro-batches; in comes what a sequence depends on,
out comes the state. Trade-off: functions and no base class, because what a row is differs from stream to stream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from megadec.common.errors import ConfigError


class Place(NamedTuple):
    """Where a rank stands when rows are cut over `parts` ranks: it holds part `part` of each of its group's rows."""

    group: int
    groups: int
    part: int
    parts: int


def place_of_rank(rank: int, world_size: int, sequence_ranks: int) -> Place:
    """Neighbours share rows: ranks 0, ..., sequence_ranks - 1 are the first group.

    Raises ConfigError when the groups do not divide the ranks.
    """
    check_groups(world_size, sequence_ranks)
    return Place(rank // sequence_ranks, world_size // sequence_ranks, rank % sequence_ranks, sequence_ranks)


def check_groups(world_size: int, sequence_ranks: int) -> None:
    """Raise ConfigError when the ranks are not so many whole groups."""
    if sequence_ranks < 1 or world_size % sequence_ranks:
        raise ConfigError(f"train.sequence_ranks={sequence_ranks} does not divide the {world_size} rank(s) of the run")


def check_parts(row_tokens: int, sequence_ranks: int) -> None:
    """Raise ConfigError when a row cannot be cut into equal parts."""
    if row_tokens % sequence_ranks:
        raise ConfigError(
            f"data.row_tokens={row_tokens} is not a multiple of train.sequence_ranks={sequence_ranks}: each rank of a"
            " group holds an equal part of a row"
        )


def share_of_rank(sequences_per_step: int, world_size: int, micro_sequences: int | None) -> tuple[int, int]:
    """(rows of one rank in a step, rows of a micro-batch); micro_sequences None takes all rows at once.

    Raises ConfigError when the step does not divide by the micro-batch and the ranks.
    """
    own = sequences_per_step // world_size
    micro = own if micro_sequences is None else micro_sequences
    if micro < 1 or sequences_per_step % (world_size * micro):
        raise ConfigError(
            f"train.sequences_per_step={sequences_per_step} is not a multiple of {micro} (micro) x {world_size} (ranks)"
        )
    return own, micro


def stream_state(
    step: int, windows: int, windows_per_epoch: int, description: dict[str, Any], fingerprint: str
) -> dict[str, Any]:
    """What a checkpoint keeps before step `step`: integers, and what the sequence depends on; JSON."""
    return {
        "step": step,
        "windows": windows,
        "epoch": windows // windows_per_epoch,
        "fingerprint": fingerprint,
        "stream": description,
    }


def fingerprint_of(description: Mapping[str, Any]) -> str:
    """SHA-256 of a description, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode("ascii")).hexdigest()
