"""How a memory-bound Triton kernel is laid over a GPU.

In: the size of a row. Out: rows and columns of a program's tile, its warps, and how many programs are started. Also
the one place that triton is imported at; where it is not installed, the kernels' modules can be imported all the same.
Trade-off: plain rules instead of autotuning, which would time every new shape and give other sums on every machine.
The rules follow from what keeps an H200's memory busy: about 30 KB on their way to each multiprocessor.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import NamedTuple

import torch

try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
except ImportError:
    triton, tl = SimpleNamespace(jit=lambda kernel: kernel), None

__all__ = ["Tile", "ceiling", "programs", "tile_of", "tl", "triton"]

TILE_ELEMENTS = 4096  # of a program: 32 a thread with 4 warps
INTERPRETED_PROGRAMS = 3  # enough that each takes several tiles, and an odd number of them


class Tile(NamedTuple):
    """rows, columns: both powers of two. warps: of 32 threads."""

    rows: int
    columns: int
    warps: int


def tile_of(size: int, tile_elements: int = TILE_ELEMENTS) -> Tile:
    """The tile for rows of `size` elements: several narrow rows, or one wide one."""
    columns = 1 << max(0, size - 1).bit_length()
    rows = max(1, tile_elements // columns)
    return Tile(rows, columns, warps=min(16, max(4, rows * columns // 1024)))


def programs(rows: int, tile: Tile, device: torch.device) -> int:
    """How many programs share all rows: what a GPU runs at a time, and no more than there are tiles."""
    if device.type == "cuda":
        resident = torch.cuda.get_device_properties(device).multi_processor_count * max(1, 32 // tile.warps)
    else:
        resident = INTERPRETED_PROGRAMS
    return max(1, min(resident, ceiling(rows, tile.rows)))


def ceiling(elements: int, each: int) -> int:
    """How many parts of `each` elements hold them all."""
    return -(-elements // each)
