"""RoPE of queries and keys in one launch, and RMSNorm of each head with RoPE in one pass, in Triton.

A row is one head of one token; its two halves are two tiles, so that the pair (i, i + F) meets in one thread.
"""

# Triton has no types: kernels are functions of pointers and numbers.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
from torch import Tensor

from megadec.decoder.kernels.triton_launch import programs, tile_of, tl, triton

# Of one half of a tile of 4 warps: 16 and 8 pairs a thread.
FORWARD_ELEMENTS, BACKWARD_ELEMENTS = 2048, 1024

# Shapes: B batch, S sequence, N = B * S tokens, H heads, D head size, F head size / 2. Tiles: R rows (token, head), C
# columns (F to the next power of two).


@triton.jit
def _places(row_R, column_C, rows, heads, half):
    """Where a row's halves lie, where its token's angles lie, and what of the tile there is."""
    inside_RC = (row_R < rows)[:, None] & (column_C < half)[None, :]
    at_RC = row_R[:, None] * (2 * half) + column_C[None, :]
    angle_RC = (row_R // heads)[:, None] * half + column_C[None, :]
    return at_RC, angle_RC, inside_RC


@triton.jit
def _load_halves(ptr, at, half, inside):
    first = tl.load(ptr + at, mask=inside, other=0.0).to(tl.float32)
    return first, tl.load(ptr + at + half, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _store_halves(ptr, at, half, inside, first, second):
    tl.store(ptr + at, first.to(ptr.dtype.element_ty), mask=inside)
    tl.store(ptr + at + half, second.to(ptr.dtype.element_ty), mask=inside)


@triton.jit
def _rotate_rows(
    x_ptr, out_ptr, cos_ptr, sin_ptr, tile, rows, heads, half, sign, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    row_R = tile.to(tl.int64) * R + tl.arange(0, R)
    at_RC, angle_RC, inside_RC = _places(row_R, tl.arange(0, C), rows, heads, half)
    first_RC, second_RC = _load_halves(x_ptr, at_RC, half, inside_RC)
    cos_RC = tl.load(cos_ptr + angle_RC, mask=inside_RC, other=0.0)
    sin_RC = tl.load(sin_ptr + angle_RC, mask=inside_RC, other=0.0) * sign
    turned_first_RC = first_RC * cos_RC - second_RC * sin_RC
    _store_halves(out_ptr, at_RC, half, inside_RC, turned_first_RC, second_RC * cos_RC + first_RC * sin_RC)


@triton.jit
def _rotate_pair(
    q_ptr, k_ptr, q_out_ptr, k_out_ptr, cos_ptr, sin_ptr, q_tiles, q_rows, k_rows, q_heads, k_heads, half, sign,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    if tile < q_tiles:
        _rotate_rows(q_ptr, q_out_ptr, cos_ptr, sin_ptr, tile, q_rows, q_heads, half, sign, R, C)
    else:
        _rotate_rows(k_ptr, k_out_ptr, cos_ptr, sin_ptr, tile - q_tiles, k_rows, k_heads, half, sign, R, C)


@triton.jit
def _forward(
    x_ptr, weight_ptr, cos_ptr, sin_ptr, out_ptr, inverse_ptr, rows, heads, half, eps, R: tl.constexpr, C: tl.constexpr
):  # fmt: skip
    row_R = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    column_C = tl.arange(0, C)
    at_RC, angle_RC, inside_RC = _places(row_R, column_C, rows, heads, half)
    first_RC, second_RC = _load_halves(x_ptr, at_RC, half, inside_RC)
    squares_R = tl.sum(first_RC * first_RC + second_RC * second_RC, axis=1)
    inverse_R = tl.rsqrt(squares_R / (2 * half) + eps)
    tl.store(inverse_ptr + row_R, inverse_R, mask=row_R < rows)
    first_weight_C, second_weight_C = _load_halves(weight_ptr, column_C, half, column_C < half)
    first_RC = first_RC * inverse_R[:, None] * first_weight_C[None, :]
    second_RC = second_RC * inverse_R[:, None] * second_weight_C[None, :]
    cos_RC = tl.load(cos_ptr + angle_RC, mask=inside_RC, other=0.0)
    sin_RC = tl.load(sin_ptr + angle_RC, mask=inside_RC, other=0.0)
    turned_first_RC = first_RC * cos_RC - second_RC * sin_RC
    _store_halves(out_ptr, at_RC, half, inside_RC, turned_first_RC, second_RC * cos_RC + first_RC * sin_RC)


@triton.jit
def _backward(
    x_ptr, weight_ptr, inverse_ptr, cos_ptr, sin_ptr, gradient_ptr, out_ptr, partial_ptr, rows, heads, half,
    R: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    column_C = tl.arange(0, C)
    first_weight_C, second_weight_C = _load_halves(weight_ptr, column_C, half, column_C < half)
    first_partial_RC = tl.zeros((R, C), dtype=tl.float32)
    second_partial_RC = tl.zeros((R, C), dtype=tl.float32)
    for start in range(tl.program_id(0) * R, rows, tl.num_programs(0) * R):
        row_R = (start + tl.arange(0, R)).to(tl.int64)
        at_RC, angle_RC, inside_RC = _places(row_R, column_C, rows, heads, half)
        cos_RC = tl.load(cos_ptr + angle_RC, mask=inside_RC, other=0.0)
        sin_RC = tl.load(sin_ptr + angle_RC, mask=inside_RC, other=0.0)
        left_RC, right_RC = _load_halves(gradient_ptr, at_RC, half, inside_RC)
        # The transposed rotation is the one by the opposite angle.
        g_first_RC = left_RC * cos_RC + right_RC * sin_RC
        g_second_RC = right_RC * cos_RC - left_RC * sin_RC
        inverse_R1 = tl.load(inverse_ptr + row_R, mask=row_R < rows, other=0.0)[:, None]
        first_RC, second_RC = _load_halves(x_ptr, at_RC, half, inside_RC)
        first_RC *= inverse_R1
        second_RC *= inverse_R1
        first_partial_RC += g_first_RC * first_RC
        second_partial_RC += g_second_RC * second_RC
        g_first_RC *= first_weight_C[None, :]
        g_second_RC *= second_weight_C[None, :]
        share_R1 = (tl.sum(g_first_RC * first_RC + g_second_RC * second_RC, axis=1) / (2 * half))[:, None]
        out_first_RC = inverse_R1 * (g_first_RC - first_RC * share_R1)
        out_second_RC = inverse_R1 * (g_second_RC - second_RC * share_R1)
        _store_halves(out_ptr, at_RC, half, inside_RC, out_first_RC, out_second_RC)
    at_C = tl.program_id(0).to(tl.int64) * (2 * half) + column_C
    first_partial_C, second_partial_C = tl.sum(first_partial_RC, axis=0), tl.sum(second_partial_RC, axis=0)
    _store_halves(partial_ptr, at_C, half, column_C < half, first_partial_C, second_partial_C)


def rotate(q_BSHD: Tensor, k_BSKD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated by their tokens' angles, or by the opposite ones with sign -1."""
    q_BSHD, k_BSKD, cos_BS1F, sin_BS1F = (x.contiguous() for x in (q_BSHD, k_BSKD, cos_BS1F, sin_BS1F))
    q_out, k_out = torch.empty_like(q_BSHD), torch.empty_like(k_BSKD)
    half = cos_BS1F.shape[-1]
    tile = tile_of(half, FORWARD_ELEMENTS)
    q_rows, k_rows = (x.numel() // (2 * half) for x in (q_BSHD, k_BSKD))
    q_tiles, k_tiles = (triton.cdiv(rows, tile.rows) for rows in (q_rows, k_rows))
    if q_tiles + k_tiles:
        _rotate_pair[(q_tiles + k_tiles,)](
            q_BSHD, k_BSKD, q_out, k_out, cos_BS1F, sin_BS1F, q_tiles, q_rows, k_rows, q_BSHD.shape[2],
            k_BSKD.shape[2], half, float(sign), R=tile.rows, C=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return q_out, k_out


def forward(x_BSHD: Tensor, weight_D: Tensor, eps: float, cos_BS1F: Tensor, sin_BS1F: Tensor) -> tuple[Tensor, Tensor]:
    """The rotated norm of x, and 1 / sqrt(mean(x^2) + eps) of each head, [N, H, 1] in float32."""
    x_BSHD, cos_BS1F, sin_BS1F = (x.contiguous() for x in (x_BSHD, cos_BS1F, sin_BS1F))
    out_BSHD = torch.empty_like(x_BSHD)
    heads, half = x_BSHD.shape[2], cos_BS1F.shape[-1]
    inverse_NH1 = x_BSHD.new_empty(x_BSHD.shape[0] * x_BSHD.shape[1], heads, 1, dtype=torch.float32)
    if rows := inverse_NH1.numel():
        tile = tile_of(half, FORWARD_ELEMENTS)
        _forward[(triton.cdiv(rows, tile.rows),)](
            x_BSHD, weight_D, cos_BS1F, sin_BS1F, out_BSHD, inverse_NH1, rows, heads, half, eps,
            R=tile.rows, C=tile.columns, num_warps=tile.warps,
        )  # fmt: skip
    return out_BSHD, inverse_NH1


def backward(
    x_BSHD: Tensor, weight_D: Tensor, inverse_NH1: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, gradient_BSHD: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight."""
    tensors = (x_BSHD, cos_BS1F, sin_BS1F, gradient_BSHD)
    x_BSHD, cos_BS1F, sin_BS1F, gradient_BSHD = (x.contiguous() for x in tensors)
    out_BSHD = torch.empty_like(x_BSHD)
    rows, heads, half = inverse_NH1.numel(), x_BSHD.shape[2], cos_BS1F.shape[-1]
    tile = tile_of(half, BACKWARD_ELEMENTS)
    grid = programs(rows, tile, x_BSHD.device)
    partial_PD = x_BSHD.new_empty(grid, weight_D.shape[0], dtype=torch.float32)
    _backward[(grid,)](
        x_BSHD, weight_D, inverse_NH1, cos_BS1F, sin_BS1F, gradient_BSHD, out_BSHD, partial_PD, rows, heads, half,
        R=tile.rows, C=tile.columns, num_warps=tile.warps,
    )  # fmt: skip
    return out_BSHD, partial_PD.sum(0).to(weight_D.dtype)
