"""Causal attention that stays inside the documents of packed rows, at the cost of the documents and not of the rows.

In: q, k and v of packed rows, and where documents begin. Out: what attention mixes. The cost follows the sum of squared
document lengths. Which of four ways a device takes is chosen in `document_kernel` and nowhere else:

- each (CPU): document by document, neighbours of one length together, as one operation for autograd and torch.compile
  with a gradient of its own, which keeps q, k, v and the result as they are and the sums of exponentials in float32.
  Long ones in bfloat16 go through cpu_attention.py, the others through torch's kernel in float32.
- varlen (CUDA): torch's flash attention for rows of several lengths (`torch.nn.attention.varlen`), for 16-bit numbers.
- flex (CUDA): FlexAttention, which leaves out blocks of 128 x 128 that lie between documents; it needs triton.
- mask (the rest): scaled_dot_product_attention with a mask, which computes every score of a row.

The lengths of documents are needed on the host, which waits for the device once a batch; in return nothing is padded
and no score between documents is computed.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from megadec.decoder import cpu_attention

# Shapes: B batch, S sequence, H query heads, K key-value heads, D head size, N = B * S tokens, M documents.

Kernel = Literal["each", "varlen", "flex", "mask"]
_FIRST_FLASH = (8, 0)  # compute capability


@dataclass(frozen=True)
class Documents:
    """starts: int32 [M + 1], number of the first token of each document in reading order of [B, S], and N at the end;
    on the device of the activations. longest: tokens of the longest, or a little more."""

    starts: Tensor
    longest: int


def document_kernel(device: torch.device, dtype: torch.dtype, head_size: int) -> Kernel:
    """How a device attends within documents, for activations of this type and heads of this size."""
    if device.type == "cpu":
        return "each"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FIRST_FLASH:
        flash = dtype in (torch.bfloat16, torch.float16) and head_size <= 256
        if flash and importlib.util.find_spec("torch.nn.attention.varlen") is not None:
            return "varlen"
        if importlib.util.find_spec("triton") is not None:
            return "flex"
    return "mask"


def document_starts(documents_BS: Tensor) -> Tensor:
    """Index in the row of the first token of each token's document, int64 [B, S]. A document is a run of one number."""
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    return torch.where(_begins(documents_BS), columns_S, 0).cummax(dim=1).values


def document_mask(documents_BS: Tensor) -> Tensor:
    """mask_B1SS, True where the key is in the query's document and not behind it."""
    starts_BS = document_starts(documents_BS)
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    causal_SS = columns_S[:, None] >= columns_S[None, :]
    return (causal_SS & (columns_S >= starts_BS[:, :, None])).unsqueeze(1)


def find_documents(documents_BS: Tensor) -> Documents:
    """The documents of packed rows, none of which reaches into another row."""
    begins_N = _begins(documents_BS.cpu()).flatten()
    starts = torch.cat([begins_N.nonzero().flatten(), torch.tensor([begins_N.numel()])]).int()
    longest = int(starts.diff().max())
    # A compiled graph is made for each value it is given: powers of two are few.
    longest = min(1 << (longest - 1).bit_length(), documents_BS.shape[1])
    starts = starts.to(documents_BS.device, non_blocking=True)
    if "torch._dynamo" in sys.modules:  # else nothing is compiled, and the import takes a second
        torch._dynamo.maybe_mark_dynamic(starts, 0)
    return Documents(starts, longest)


def _begins(documents_BS: Tensor) -> Tensor:
    """bool [B, S]: whether a document begins here."""
    begins_BS = torch.ones_like(documents_BS, dtype=torch.bool)
    begins_BS[:, 1:] = documents_BS[:, 1:] != documents_BS[:, :-1]
    return begins_BS


def attend_documents(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, documents: Documents) -> Tensor:
    """softmax(q k^T / sqrt(D)) v, causal and within documents; [B, S, H * D]."""
    q, k, v = (x.flatten(0, 1) for x in (q_BSHD, k_BSKD, v_BSKD))
    if q.device.type == "cuda":
        mixed_NHD = _varlen()(q, k, v, documents.starts, documents.starts, documents.longest, documents.longest)
    else:
        mixed_NHD, _ = attend_each(q, k, v, documents.starts)
    out: Tensor = mixed_NHD.unflatten(0, q_BSHD.shape[:2]).flatten(2)
    return out


@functools.lru_cache(maxsize=1)
def _varlen() -> Any:
    """torch's function, causal and with grouped heads in the words of this version of torch."""
    from torch.nn.attention.varlen import varlen_attn

    known = inspect.signature(varlen_attn).parameters
    options: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in known else {"is_causal": True}
    if "enable_gqa" in known:
        options["enable_gqa"] = True
    return functools.partial(varlen_attn, **options)


# FlexAttention.


def document_blocks(documents_BS: Tensor) -> Any:
    """FlexAttention's BlockMask of packed rows."""
    starts_BS = document_starts(documents_BS)
    rows, tokens = documents_BS.shape

    def sees(row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= starts_BS[row, query])

    make, _ = _flex(documents_BS.device.type)
    return make(sees, rows, None, tokens, tokens, device=documents_BS.device)


def attend_blocks(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, blocks: Any) -> Tensor:
    """softmax(q k^T / sqrt(D)) v where the BlockMask lets it; [B, S, H * D]."""
    _, attend = _flex(q_BSHD.device.type)
    q, k, v = (x.transpose(1, 2) for x in (q_BSHD, k_BSKD, v_BSKD))
    mixed_BHSD: Tensor = attend(q, k, v, block_mask=blocks, enable_gqa=q.shape[1] != k.shape[1])
    return mixed_BHSD.transpose(1, 2).flatten(2)


@functools.lru_cache(maxsize=2)
def _flex(device_type: str) -> tuple[Any, Any]:
    """create_block_mask and flex_attention, compiled for a GPU: neither is of use there without."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if device_type != "cuda":
        return create_block_mask, flex_attention
    return torch.compile(create_block_mask), torch.compile(flex_attention)


# Each document by itself, on a CPU.

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def _runs(starts: Tensor) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Neighbouring documents of one length: their tokens, and (documents, tokens of each)."""
    first = 0
    for length, same in groupby(after - before for before, after in pairwise(starts.tolist())):
        count = len(list(same))
        yield slice(first, first + count * length), (count, length)
        first += count * length


def _batch(x_N: Tensor, run: tuple[slice, tuple[int, int]], dtype: torch.dtype | None = None) -> Tensor:
    """The documents of a run as the kernel wants them: [count, heads, length, ...], a view where the type is right."""
    part, sizes = run
    batch: Tensor = x_N[part].to(dtype or x_N.dtype).unflatten(0, sizes)
    return batch.transpose(1, 2)


@torch.library.custom_op(
    "megadec::attend_each",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor q_NHD, Tensor k_NKD, Tensor v_NKD, Tensor starts) -> (Tensor, Tensor)",
)
def attend_each(q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """What attention mixes [N, H, D], and the logarithms of the sums of exponentials [N, H], at least float32."""
    wide = torch.promote_types(q_NHD.dtype, torch.float32)
    mixed_NHD, sums_NH = q_NHD.new_empty(q_NHD.shape), q_NHD.new_empty(q_NHD.shape[:2], dtype=wide)
    for run in _runs(starts):
        if cpu_attention.pays(q_NHD.dtype, run[1][1]):
            cpu_attention.attend_blocks_forward(
                *(x[run[0]].unflatten(0, run[1]) for x in (q_NHD, k_NKD, v_NKD, mixed_NHD))
            )
            sums_NH[run[0]] = 0  # its gradient does not need them
            continue
        mixed, sums = _flash(*(_batch(x, run, wide) for x in (q_NHD, k_NKD, v_NKD)), 0.0, True)
        _batch(mixed_NHD, run).copy_(mixed)
        _batch(sums_NH, run).copy_(sums)
    return mixed_NHD, sums_NH


@attend_each.register_fake
def _(q_NHD: Tensor, k_NKD: Tensor, v_NKD: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    wide = torch.promote_types(q_NHD.dtype, torch.float32)
    return q_NHD.new_empty(q_NHD.shape), q_NHD.new_empty(q_NHD.shape[:2], dtype=wide)


@torch.library.custom_op(
    "megadec::attend_each_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor upstream_NHD, Tensor q_NHD, Tensor k_NKD, Tensor v_NKD, Tensor mixed_NHD, Tensor sums_NH, "
    "Tensor starts) -> (Tensor, Tensor, Tensor)",
)
def _attend_each_backward(
    upstream_NHD: Tensor,
    q_NHD: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
    mixed_NHD: Tensor,
    sums_NH: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    gradients = tuple(x.new_empty(x.shape) for x in (q_NHD, k_NKD, v_NKD))
    for run in _runs(starts):
        if cpu_attention.pays(q_NHD.dtype, run[1][1]):
            g, q, k, v = (x[run[0]].unflatten(0, run[1]) for x in (upstream_NHD, q_NHD, k_NKD, v_NKD))
            out = [x[run[0]].unflatten(0, run[1]) for x in gradients]
            cpu_attention.attend_blocks_backward(g, q, k, v, (out[0], out[1], out[2]))
            continue
        # In float32: for short documents the CPU kernel's gradient in bfloat16 costs three times as much.
        given = (_batch(x, run, sums_NH.dtype) for x in (upstream_NHD, q_NHD, k_NKD, v_NKD, mixed_NHD))
        found = _flash_backward(*given, _batch(sums_NH, run), 0.0, True)
        for gradient, part in zip(gradients, found, strict=True):
            _batch(gradient, run).copy_(part)
    return gradients[0], gradients[1], gradients[2]


@_attend_each_backward.register_fake
def _(
    upstream_NHD: Tensor,
    q_NHD: Tensor,
    k_NKD: Tensor,
    v_NKD: Tensor,
    mixed_NHD: Tensor,
    sums_NH: Tensor,
    starts: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return q_NHD.new_empty(q_NHD.shape), k_NKD.new_empty(k_NKD.shape), v_NKD.new_empty(v_NKD.shape)


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    q_NHD, k_NKD, v_NKD, starts = inputs
    ctx.save_for_backward(q_NHD, k_NKD, v_NKD, *output, starts)


def _gradients(ctx: Any, upstream_NHD: Tensor, _sums: Tensor) -> tuple[Tensor | None, ...]:
    return (*_attend_each_backward(upstream_NHD, *ctx.saved_tensors), None)


attend_each.register_autograd(_gradients, setup_context=_save)
