"""How a memory-bound Triton kernel is laid over a GPU.

In: the size of a row. Out: rows and columns of a program's tile, its warps, and how many programs are started. Also the
one place that triton is imported at; where it is not installed, the kernels' modules can be imported all the same.
Plain rules instead of autotuning, which would time every new shape and give other sums on every machine. The rules
follow from what keeps an H200's memory busy: about 30 KB on their way to each multiprocessor.
"""

import os
from types import SimpleNamespace
from typing import NamedTuple

import torch

# Products and sums are fused into one rounding, as nvcc does; Triton from 3.9 on warns when this is left open.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
try:
    import triton  # type: ignore[import-untyped]
    import triton.language as tl  # type: ignore[import-untyped]
except ImportError:
    triton, tl = SimpleNamespace(jit=lambda kernel: kernel), None

__all__ = ["Tile", "programs", "tile_of", "tl", "triton"]

WARPS, MOST_WARPS = 4, 32
# Warps of backward kernels that a multiprocessor of an H200 holds: they take about 80 registers a thread.
RESIDENT_WARPS = 24
INTERPRETED_PROGRAMS = 3  # enough that each takes several tiles, and an odd number of them


class Tile(NamedTuple):
    """rows, columns: both powers of two. warps: of 32 threads."""

    rows: int
    columns: int
    warps: int


def tile_of(size: int, elements: int) -> Tile:
    """The tile for rows of `size` elements: as many rows as make `elements`, or one row and more warps."""
    columns = 1 << max(0, size - 1).bit_length()
    rows = max(1, elements // columns)
    return Tile(rows, columns, warps=min(MOST_WARPS, max(WARPS, WARPS * columns // elements)))


def programs(rows: int, tile: Tile, device: torch.device) -> int:
    """How many programs share all rows: what a GPU runs at a time, and no more than there are tiles."""
    if device.type == "cuda":
        resident = torch.cuda.get_device_properties(device).multi_processor_count * max(1, RESIDENT_WARPS // tile.warps)
    else:
        resident = INTERPRETED_PROGRAMS
    return max(1, min(resident, int(triton.cdiv(rows, tile.rows))))
