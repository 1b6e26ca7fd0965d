"""Causal attention of long documents on a CPU, a block of queries at a time.

In: queries, keys and values of documents of one length, and after the forward pass the gradient of what they mixed.
Out: softmax(q k^T / sqrt(D)) v, and the gradients. torch's CPU kernel reaches a tenth of the speed of a matrix product;
here every product goes through the matrix library, keys behind a block are not touched, and the query heads that share
a key head are one product. Scores and softmax are float32; probabilities and their gradients are rounded to the inputs'
dtype, in which they meet the other factor. Nothing is needed of the forward pass but q, k and v, so the backward pass
computes the probabilities again; a block's scores, heads x block x document, exist at once.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from megadec.decoder.kernels import precision

# Shapes: B documents, S tokens of each, H query heads, K key heads, G = H / K, D head size, Q queries of a block, T =
# the tokens up to the block's end; X = B * K and Y = G * Q are the batch and the rows of a product.

BLOCK_QUERIES = 128
# In bfloat16, and from so many tokens on, this costs less than torch's kernel in either type.
LEAST_TOKENS = 256
# The scores of some documents together, in float32, shall stay in the caches.
BLOCK_ELEMENTS = 2**21


def pays(dtype: torch.dtype, tokens: int) -> bool:
    """Whether this way is faster on a CPU for documents of so many tokens."""
    return dtype == torch.bfloat16 and tokens >= LEAST_TOKENS and precision.CPU_HAS_BF16


def attend_blocks_forward(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, out_BSHD: Tensor) -> None:
    """Write softmax(q k^T / sqrt(D)) v to `out_BSHD`, each token seeing its document up to itself."""
    for part in _parts(q_BSHD):
        q_bSHD, out_bSHD = q_BSHD[part], out_BSHD[part]
        k_XSD, v_XSD = _heads_first(k_BSKD[part]), _heads_first(v_BSKD[part])
        wide_k_XDS = _wide(k_XSD).transpose(1, 2)
        for block, end in _blocks(q_BSHD.shape[1]):
            p_XYT = _probabilities(_grouped(q_bSHD[:, block], k_BSKD.shape[2]), wide_k_XDS[..., :end])
            _write(out_bSHD[:, block], p_XYT.to(v_XSD.dtype) @ v_XSD[:, :end])


def attend_blocks_backward(
    gradient_BSHD: Tensor, q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, out: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Write the gradients of q, k and v to `out`, where `gradient_BSHD` is that of the result."""
    for part in _parts(q_BSHD):
        here = [x[part] for x in out]
        _backward(gradient_BSHD[part], q_BSHD[part], k_BSKD[part], v_BSKD[part], here)


def _backward(g_BSHD: Tensor, q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, out: Sequence[Tensor]) -> None:
    heads, scale = k_BSKD.shape[2], q_BSHD.shape[-1] ** -0.5
    k_XSD, v_XDS = _heads_first(k_BSKD), _heads_first(v_BSKD).transpose(1, 2)
    wide_k_XDS = _wide(k_XSD).transpose(1, 2)
    k_gradient_XSD, v_gradient_XSD = (torch.zeros_like(k_XSD, dtype=wide_k_XDS.dtype) for _ in range(2))
    for block, end in _blocks(q_BSHD.shape[1]):
        q_XYD, g_XYD = _grouped(q_BSHD[:, block], heads), _grouped(g_BSHD[:, block], heads)
        p_XYT = _probabilities(q_XYD, wide_k_XDS[..., :end])
        p_XYT = p_XYT.to(g_XYD.dtype)
        s_gradient_XYT = torch._softmax_backward_data(g_XYD @ v_XDS[..., :end], p_XYT, -1, p_XYT.dtype)
        v_gradient_XSD[:, :end] += p_XYT.transpose(1, 2) @ g_XYD
        k_gradient_XSD[:, :end].add_(s_gradient_XYT.transpose(1, 2) @ q_XYD, alpha=scale)
        _write(out[0][:, block], (s_gradient_XYT @ k_XSD[:, :end]).mul_(scale))
    for gradient_BSKD, gradient_XSD in zip(out[1:], (k_gradient_XSD, v_gradient_XSD), strict=True):
        gradient_BSKD.copy_(gradient_XSD.unflatten(0, (-1, heads)).transpose(1, 2))


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
    wide_q_XYD = _wide(q_XYD)
    nothing_111, scale = wide_q_XYD.new_empty(1, 1, 1), q_XYD.shape[-1] ** -0.5
    with _through_onednn() if q_XYD.dtype == torch.bfloat16 else contextlib.nullcontext():
        scores_XYT = torch.baddbmm(nothing_111, wide_q_XYD, wide_k_XDT, beta=0, alpha=scale)
    tokens = scores_XYT.shape[-1]
    queries = tokens - (tokens - 1) // BLOCK_QUERIES * BLOCK_QUERIES
    scores_XYT.unflatten(1, (-1, queries))[..., -queries:].add_(_hidden(queries, scores_XYT.dtype))
    p_XYT: Tensor = torch.softmax(scores_XYT, -1)
    return p_XYT


@functools.lru_cache(maxsize=16)
def _hidden(queries: int, dtype: torch.dtype) -> Tensor:
    """[Q, Q]: minus infinity where the key is behind the query, else 0."""
    with torch.inference_mode(False):  # made while generating, it must also serve training
        hidden_QQ: Tensor = torch.full((queries, queries), -math.inf, dtype=dtype).triu_(1)
        return hidden_QQ


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


def _wide(x: Tensor) -> Tensor:
    wide: Tensor = x.to(torch.promote_types(x.dtype, torch.float32))
    return wide


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
