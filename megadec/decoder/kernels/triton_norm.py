"""RMSNorm with the residual addition before it, in Triton: forward in one pass, backward in one.

In and out: as in `norm.py`, whose functions call this. A row is held in registers, so it is read once; narrow rows go
several to a program. The backward pass is a persistent kernel: each program strides over the rows and sums its part of
the weight's gradient in registers. A small second pass adds the parts, in an order that does not depend on timing.
"""

# Triton has no types: kernels are functions of pointers and numbers.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
from torch import Tensor

from megadec.decoder.kernels.triton_launch import programs, tile_of, tl, triton

# Of a tile of 4 warps: 32 and 16 elements a thread.
FORWARD_ELEMENTS, BACKWARD_ELEMENTS = 4096, 2048

# Shapes: N rows, H elements of a row. Tiles: R rows, C columns (H to the next power of two).


@triton.jit
def _forward(
    x_ptr, added_ptr, weight_ptr, stream_ptr, out_ptr, inverse_ptr, rows, size, eps,
    ADDS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row_R = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    column_C = tl.arange(0, C)
    inside_RC = (row_R < rows)[:, None] & (column_C < size)[None, :]
    at_RC = row_R[:, None] * size + column_C[None, :]
    x_RC = tl.load(x_ptr + at_RC, mask=inside_RC, other=0.0)
    if ADDS:
        added_RC = tl.load(added_ptr + at_RC, mask=inside_RC, other=0.0)
        x_RC = (x_RC.to(tl.float32) + added_RC.to(tl.float32)).to(x_RC.dtype)
        tl.store(stream_ptr + at_RC, x_RC, mask=inside_RC)
    wide_RC = x_RC.to(tl.float32)
    inverse_R = tl.rsqrt(tl.sum(wide_RC * wide_RC, axis=1) / size + eps)
    tl.store(inverse_ptr + row_R, inverse_R, mask=row_R < rows)
    weight_C = tl.load(weight_ptr + column_C, mask=column_C < size, other=0.0).to(tl.float32)
    # Rounded between the two products, as Hugging Face does.
    normed_RC = (wide_RC * inverse_R[:, None]).to(x_RC.dtype).to(tl.float32)
    tl.store(out_ptr + at_RC, (normed_RC * weight_C[None, :]).to(x_RC.dtype), mask=inside_RC)


@triton.jit
def _backward(
    x_ptr, weight_ptr, inverse_ptr, gradient_ptr, also_ptr, out_ptr, partial_ptr, rows, size,
    ADDS: tl.constexpr, R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    column_C = tl.arange(0, C)
    weight_C = tl.load(weight_ptr + column_C, mask=column_C < size, other=0.0).to(tl.float32)
    partial_RC = tl.zeros((R, C), dtype=tl.float32)
    for first in range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row_R = (first + tl.arange(0, R)).to(tl.int64)
        inside_RC = (row_R < rows)[:, None] & (column_C < size)[None, :]
        at_RC = row_R[:, None] * size + column_C[None, :]
        x_RC = tl.load(x_ptr + at_RC, mask=inside_RC, other=0.0)
        g_RC = tl.load(gradient_ptr + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
        inverse_R1 = tl.load(inverse_ptr + row_R, mask=row_R < rows, other=0.0)[:, None]
        normed_RC = x_RC.to(tl.float32) * inverse_R1
        partial_RC += g_RC * normed_RC
        g_RC *= weight_C[None, :]
        share_R1 = (tl.sum(g_RC * normed_RC, axis=1) / size)[:, None]
        out_RC = inverse_R1 * (g_RC - normed_RC * share_R1)
        if ADDS:
            out_RC += tl.load(also_ptr + at_RC, mask=inside_RC, other=0.0).to(tl.float32)
        tl.store(out_ptr + at_RC, out_RC.to(x_RC.dtype), mask=inside_RC)
    at_C = tl.program_id(0).to(tl.int64) * size + column_C
    tl.store(partial_ptr + at_C, tl.sum(partial_RC, axis=0), mask=column_C < size)


def forward(x: Tensor, added: Tensor | None, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The stream, its norm, and 1 / sqrt(mean(x^2) + eps) of each row, [N, 1] in float32."""
    x = x.contiguous()
    size = weight_H.shape[0]
    rows = x.numel() // size
    stream = x if added is None else torch.empty_like(x)
    out = torch.empty_like(x)
    inverse_N1 = x.new_empty(rows, 1, dtype=torch.float32)
    if rows:
        tile = tile_of(size, FORWARD_ELEMENTS)
        other = x if added is None else added.contiguous()
        _forward[(triton.cdiv(rows, tile.rows),)](
            x, other, weight_H, stream, out, inverse_N1, rows, size, eps,
            ADDS=added is not None, R=tile.rows, C=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return stream, out, inverse_N1


def backward(
    x: Tensor, weight_H: Tensor, inverse_N1: Tensor, gradient: Tensor, also: Tensor | None, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and of the weight; `also` is a further gradient of x, which is added before rounding."""
    gradient = gradient.contiguous()
    size = weight_H.shape[0]
    rows = inverse_N1.shape[0]
    out = torch.empty_like(gradient)
    tile = tile_of(size, BACKWARD_ELEMENTS)
    grid = programs(rows, tile, x.device)
    partial_PH = x.new_empty(grid, size, dtype=torch.float32)
    other = gradient if also is None else also.contiguous()
    _backward[(grid,)](
        x.contiguous(), weight_H, inverse_N1, gradient, other, out, partial_PH, rows, size,
        ADDS=also is not None, R=tile.rows, C=tile.columns, num_warps=tile.warps,
    )  # fmt: skip
    return out, partial_PH.sum(0).to(weight_H.dtype) if wants_weight else None
