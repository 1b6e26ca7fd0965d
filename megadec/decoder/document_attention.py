"""Causal attention that stays inside the documents of packed sequences: where documents begin, and who attends.

The cost follows the sum of squared document lengths; nothing is padded. `document_kernel` chooses one of four ways:

- each (CPU): document by document, kernels/cpu_attention.py.
- varlen (CUDA): torch's flash attention for sequences of several lengths, for 16-bit numbers.
- flex (CUDA): FlexAttention, which leaves out blocks of 128 x 128 that lie between documents; it needs triton.
- mask (the rest): scaled_dot_product_attention with a mask, which computes every score of a sequence.

The lengths of documents are needed on the host, which waits for the device once a batch.
"""

import functools
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from megadec.decoder.kernels.choose import triton_is_installed
from megadec.decoder.kernels.cpu_attention import attend_each

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
        if triton_is_installed():
            return "flex"
    return "mask"


def document_starts(documents_BS: Tensor) -> Tensor:
    """Index in the sequence of the first token of each token's document, int64 [B, S].

    A document is a run of one number.
    """
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    return torch.where(_begins(documents_BS), columns_S, 0).cummax(dim=1).values


def document_mask(documents_BS: Tensor) -> Tensor:
    """mask_B1SS, True where the key is in the query's document and not behind it."""
    starts_BS = document_starts(documents_BS)
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    causal_SS = columns_S[:, None] >= columns_S[None, :]
    return (causal_SS & (columns_S >= starts_BS[:, :, None])).unsqueeze(1)


def locate_documents(documents_BS: Tensor) -> Documents:
    """The documents of packed sequences, none of which reaches into another sequence."""
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
    """FlexAttention's BlockMask of packed sequences."""
    starts_BS = document_starts(documents_BS)
    batch, tokens = documents_BS.shape

    def sees(sequence: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= starts_BS[sequence, query])

    make, _ = _flex(documents_BS.device.type)
    return make(sees, batch, None, tokens, tokens, device=documents_BS.device)


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
