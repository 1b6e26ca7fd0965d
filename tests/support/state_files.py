"""The state files of one rank, made by hand: weights, and moments where there are some."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from megadec.engine.zero.state_files import WEIGHT, ShardSlice, Sums, header_of, rank_file, write_state


def write_state_files(
    checkpoint: Path,
    weights: Mapping[str, Tensor],
    moments: Mapping[str, Mapping[str, Tensor]] | None = None,
    optimizer_step: int | None = None,
) -> Sums:
    """Write tensors of one dtype as the only rank of a run does; moments: by name and part. Returns the bit sums."""
    whole = {name: {WEIGHT: tensor, **(moments or {}).get(name, {})} for name, tensor in weights.items()}
    slices = [
        (ShardSlice(name, part, 0, tensor.numel(), tensor.dtype), tensor.flatten())
        for name, parts in whole.items()
        for part, tensor in parts.items()
    ]
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    header = header_of([shard for shard, _ in slices], shapes, optimizer_step)
    return write_state(checkpoint / rank_file(0), header, slices, lambda: None)[1]
