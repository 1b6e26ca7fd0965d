"""Causal attention of packed documents on a CPU, document by document, as one operation for autograd and torch.compile.

Neighbors of one length go together. Short documents take torch's kernel in float32. That kernel reaches a tenth of the
speed of a matrix product, so long ones in bfloat16 are attended here by blocks of queries: every product goes through
the matrix library, keys behind a block are not touched, and the query heads that share a key head are one product.
Scores and softmax are float32; probabilities and their gradients are rounded to the inputs' dtype, in which they meet
the other factor. The backward pass computes probabilities again, a block's (heads x block x document) at once.
"""

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, cast

import torch
from torch import Tensor

from megadec.decoder.kernels import precision
from megadec.decoder.kernels.precision import at_least_float32

# Shapes: N tokens of all documents, B documents of one length, S tokens of each, H query heads, K key heads, G = H / K,
# D head size, Q queries of a block, T = the tokens up to the block's end; X = B * K and Y = G * Q are the batch and the
# rows of a product.

BLOCK_QUERIES = 128
# In bfloat16, and from so many tokens on, blocks cost less than torch's kernel in either type.
LEAST_TOKENS = 256
# The scores of some documents together, in float32, shall stay in the caches.
BLOCK_ELEMENTS = 2**21

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def is_faster(dtype: torch.dtype, tokens: int) -> bool:
    """Whether blocks of queries are faster for documents of so many tokens."""
    return dtype == torch.bfloat16 and tokens >= LEAST_TOKENS and precision.CPU_HAS_BF16


@torch.library.custom_op("megadec::attend_each", mutates_args=(), device_types="cpu")
def attend_each(q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """What attention mixes [N, H, D], and the logarithms of the sums of exponentials [N, H], at least float32.

    starts: int32 [documents + 1], the first token of each document, and N at the end.
    """
    mixed_NHD, sums_NH = _results(q_NHD)
    for tokens, sizes in _runs(starts):
        q, k, v, mixed = (x[tokens].unflatten(0, sizes) for x in (q_NHD, k_NKD, v_NKD, mixed_NHD))
        if is_faster(q_NHD.dtype, sizes[1]):
            attend_blocks_forward(q, k, v, mixed)
            sums_NH[tokens] = 0  # its gradient does not need them
            continue
        found, sums = _flash(*(x.to(sums_NH.dtype).transpose(1, 2) for x in (q, k, v)), 0.0, True)
        mixed.transpose(1, 2).copy_(found)
        sums_NH[tokens].unflatten(0, sizes).transpose(1, 2).copy_(sums)
    return mixed_NHD, sums_NH


@attend_each.register_fake
def _(q_NHD: Tensor, *_others: Tensor) -> tuple[Tensor, Tensor]:
    return _results(q_NHD)


def _results(q_NHD: Tensor) -> tuple[Tensor, Tensor]:
    return q_NHD.new_empty(q_NHD.shape), q_NHD.new_empty(q_NHD.shape[:2], dtype=precision.wide_dtype(q_NHD))


@torch.library.custom_op("megadec::attend_each_backward", mutates_args=(), device_types="cpu")
def _attend_each_backward(
    g_NHD: Tensor, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, mixed_NHD: Tensor, sums_NH: Tensor, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = _like(q_NHD, k_NKD, v_NKD)
    given = (g_NHD, q_NHD, k_NKD, v_NKD, mixed_NHD, sums_NH, *gradients)
    for tokens, sizes in _runs(starts):
        g, q, k, v, mixed, sums, *out = (x[tokens].unflatten(0, sizes) for x in given)
        if is_faster(q_NHD.dtype, sizes[1]):
            attend_blocks_backward(g, q, k, v, out)
            continue
        # In float32: for short documents the CPU kernel's gradient in bfloat16 costs three times as much.
        heads_first = (x.to(sums.dtype).transpose(1, 2) for x in (g, q, k, v, mixed, sums))
        for gradient, found in zip(out, _flash_backward(*heads_first, 0.0, True), strict=True):
            gradient.transpose(1, 2).copy_(found)
    return gradients


@_attend_each_backward.register_fake
def _(_g: Tensor, q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, *_others: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _like(q_NHD, k_NKD, v_NKD)


def _like(q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return q_NHD.new_empty(q_NHD.shape), k_NKD.new_empty(k_NKD.shape), v_NKD.new_empty(v_NKD.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q_NHD, k_NKD, v_NKD, starts = inputs
    ctx.save_for_backward(q_NHD, k_NKD, v_NKD, *output, starts)


def _gradients(ctx: Any, upstream_NHD: Tensor, _sums: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attend_each_backward(upstream_NHD, *ctx.saved_tensors), None)


attend_each.register_autograd(_gradients, setup_context=_save)


def _runs(starts: Tensor) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Neighboring documents of one length: their tokens, and (documents, tokens of each)."""
    first = 0
    for length, same in groupby(after - before for before, after in pairwise(starts.tolist())):
        count = len(list(same))
        yield slice(first, first + count * length), (count, length)
        first += count * length


# By blocks of queries.


def attend_blocks_forward(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, out_BSHD: Tensor) -> None:
    """Write softmax(q k^T / sqrt(D)) v to `out_BSHD`, each token seeing its document up to itself."""
    for part in _parts(q_BSHD):
        q_bSHD, out_bSHD = q_BSHD[part], out_BSHD[part]
        k_XSD, v_XSD = _heads_first(k_BSKD[part]), _heads_first(v_BSKD[part])
        wide_k_XDS = at_least_float32(k_XSD).transpose(1, 2)
        for block, end in _blocks(q_BSHD.shape[1]):
            p_XYT = _probabilities(_grouped(q_bSHD[:, block], k_BSKD.shape[2]), wide_k_XDS[..., :end])
            _write(out_bSHD[:, block], p_XYT.to(v_XSD.dtype) @ v_XSD[:, :end])


def attend_blocks_backward(
    gradient_BSHD: Tensor, q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, out: Sequence[Tensor]
) -> None:
    """Write the gradients of q, k and v to `out`, where `gradient_BSHD` is that of the result."""
    heads, scale = k_BSKD.shape[2], q_BSHD.shape[-1] ** -0.5
    for part in _parts(q_BSHD):
        q_bSHD, g_bSHD, q_out, k_out, v_out = (x[part] for x in (q_BSHD, gradient_BSHD, *out))
        k_XSD, v_XDS = _heads_first(k_BSKD[part]), _heads_first(v_BSKD[part]).transpose(1, 2)
        wide_k_XDS = at_least_float32(k_XSD).transpose(1, 2)
        k_gradient_XSD, v_gradient_XSD = (torch.zeros_like(k_XSD, dtype=wide_k_XDS.dtype) for _ in range(2))
        for block, end in _blocks(q_BSHD.shape[1]):
            q_XYD, g_XYD = _grouped(q_bSHD[:, block], heads), _grouped(g_bSHD[:, block], heads)
            p_XYT = _probabilities(q_XYD, wide_k_XDS[..., :end]).to(g_XYD.dtype)
            s_gradient_XYT = torch._softmax_backward_data(g_XYD @ v_XDS[..., :end], p_XYT, -1, p_XYT.dtype)
            v_gradient_XSD[:, :end] += p_XYT.transpose(1, 2) @ g_XYD
            k_gradient_XSD[:, :end].add_(s_gradient_XYT.transpose(1, 2) @ q_XYD, alpha=scale)
            _write(q_out[:, block], (s_gradient_XYT @ k_XSD[:, :end]).mul_(scale))
        for one, gradient_XSD in ((k_out, k_gradient_XSD), (v_out, v_gradient_XSD)):
            one.transpose(1, 2).copy_(gradient_XSD.unflatten(0, (-1, heads)))


def _parts(q_BSHD: Tensor) -> Iterator[slice]:
    """Slices of documents whose blocks are computed together."""
    documents, tokens, heads, _ = q_BSHD.shape
    step = max(1, BLOCK_ELEMENTS // (BLOCK_QUERIES * tokens * heads))
    for first in range(0, documents, step):
        yield slice(first, first + step)


def _blocks(tokens: int) -> Iterator[tuple[slice, int]]:
    """Slices of queries, and the end of the keys that they see."""
    for start in range(0, tokens, BLOCK_QUERIES):
        end = min(start + BLOCK_QUERIES, tokens)
        yield slice(start, end), end


def _probabilities(q_XYD: Tensor, wide_k_XDT: Tensor) -> Tensor:
    """softmax over the keys that each query of the last block of T sees, float32; exactly 0 behind the query."""
    wide_q_XYD = q_XYD.to(wide_k_XDT.dtype)
    nothing_111, scale = wide_q_XYD.new_empty(1, 1, 1), q_XYD.shape[-1] ** -0.5
    with _through_onednn() if q_XYD.dtype == torch.bfloat16 else contextlib.nullcontext():
        scores_XYT = torch.baddbmm(nothing_111, wide_q_XYD, wide_k_XDT, beta=0, alpha=scale)
    tokens = scores_XYT.shape[-1]
    queries = tokens - (tokens - 1) // BLOCK_QUERIES * BLOCK_QUERIES
    scores_XYT.unflatten(1, (-1, queries))[..., -queries:].add_(_hidden(queries, scores_XYT.dtype))
    return torch.softmax(scores_XYT, -1)


@functools.lru_cache(maxsize=16)
def _hidden(queries: int, dtype: torch.dtype) -> Tensor:
    """[Q, Q]: minus infinity where the key is behind the query, else 0."""
    with torch.inference_mode(False):  # made while generating, it must also serve training
        return torch.full((queries, queries), -math.inf, dtype=dtype).triu_(1)


@contextlib.contextmanager
def _through_onednn() -> Iterator[None]:
    """Let oneDNN, which is faster than MKL where the processor is not Intel's, multiply float32 matrices.

    It may then round the factors to bfloat16; here they were bfloat16, so that changes nothing.
    """
    settings = cast(Any, torch.backends.mkldnn).matmul
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        yield
    finally:
        settings.fp32_precision = before


def _heads_first(x_BSKD: Tensor) -> Tensor:
    """[B * K, S, D], contiguous."""
    return x_BSKD.transpose(1, 2).contiguous().flatten(0, 1)


def _grouped(x_BQHD: Tensor, heads: int) -> Tensor:
    """[B * K, G * Q, D]: the query heads of a key head one behind the other."""
    x_BKGQD: Tensor = x_BQHD.unflatten(2, (heads, -1)).permute(0, 2, 3, 1, 4)
    return x_BKGQD.reshape(x_BQHD.shape[0] * heads, -1, x_BQHD.shape[3])


def _write(out_BQHD: Tensor, x_XYD: Tensor) -> None:
    """The inverse of `_grouped`, into `out_BQHD`."""
    documents, queries = out_BQHD.shape[:2]
    x_BKGQD = x_XYD.unflatten(0, (documents, -1)).unflatten(2, (-1, queries))
    out_BQHD.unflatten(2, x_BKGQD.shape[1:3]).copy_(x_BKGQD.permute(0, 3, 1, 2, 4))
