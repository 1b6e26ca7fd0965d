"""Grouped-query causal attention that does not cross documents.

An `AttentionMask` says which token sees which. It is made once a batch and holds what the device's kernel needs
(document_attention.py), so that nothing is worked out again in each layer.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from megadec.decoder.cache import KeyValueCache
from megadec.decoder.document_attention import (
    Documents,
    attend_blocks,
    attend_documents,
    document_blocks,
    document_kernel,
    document_mask,
    locate_documents,
)
from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.precision import matmul_dtype
from megadec.decoder.kernels.rotary import rotate_pair
from megadec.decoder.layers import Linear, RotaryNorm
from megadec.decoder.sequence_parallel import SequenceRanks
from megadec.decoder.shape import DecoderShape

# Shapes: B batch, S new tokens, T tokens so far, H query heads (in x_BSH the hidden size), K key-value heads, D head
# size, F head size / 2.


@dataclasses.dataclass(frozen=True)
class AttentionMask:
    """Which tokens a token sees. Of the first four at most one is set; with none, all earlier tokens and itself.

    documents: those of its document, by their lengths; blocks: the same, by FlexAttention's BlockMask.
    mask_B1ST: True where the query may see the key.
    everything: the (single) new token sees all tokens so far.
    sequence: the ranks that hold the parts of the sequences; the other fields are then of whole sequences.
    """

    documents: Documents | None = None
    blocks: Any = None
    mask_B1ST: Tensor | None = None
    everything: bool = False
    sequence: SequenceRanks | None = None

    @property
    def causal(self) -> bool:
        """Whether each token sees all earlier tokens of its sequence and itself."""
        return self.documents is None and self.blocks is None and self.mask_B1ST is None and not self.everything


CAUSAL = AttentionMask()


def packed_mask(documents_BS: Tensor, dtype: torch.dtype, head_size: int) -> AttentionMask:
    """The mask of packed sequences: causal in each run of one document number, nothing across."""
    kernel = document_kernel(documents_BS.device, dtype, head_size)
    if kernel == "mask":
        return AttentionMask(mask_B1ST=document_mask(documents_BS))
    if kernel == "flex":
        return AttentionMask(blocks=document_blocks(documents_BS))
    documents = locate_documents(documents_BS)
    if kernel == "varlen" and documents.starts.numel() == documents_BS.shape[0] + 1:
        return CAUSAL  # one document each: torch then chooses among its kernels for sequences of one length
    return AttentionMask(documents=documents)


def cached_mask(new_tokens: int, seen_tokens: int, device: torch.device) -> AttentionMask:
    """The mask of `new_tokens` behind `seen_tokens` in a cache."""
    if seen_tokens == 0:
        return CAUSAL
    if new_tokens == 1:
        return AttentionMask(everything=True)
    ones_ST = torch.ones(new_tokens, seen_tokens + new_tokens, dtype=torch.bool, device=device)
    return AttentionMask(mask_B1ST=ones_ST.tril(diagonal=seen_tokens)[None, None])


def attend(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, mask: AttentionMask) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over what the mask lets each token see; [B, S, H * D]."""
    if mask.sequence is not None:
        whole = dataclasses.replace(mask, sequence=None)
        return mask.sequence.attend(lambda q, k, v: attend(q, k, v, whole), q_BSHD, k_BTKD, v_BTKD)
    if mask.documents is not None:
        return attend_documents(q_BSHD, k_BTKD, v_BTKD, mask.documents)
    if mask.blocks is not None:
        return attend_blocks(q_BSHD, k_BTKD, v_BTKD, mask.blocks)
    wide = matmul_dtype(q_BSHD)
    if mask.causal and wide != q_BSHD.dtype:
        # Each sequence as a document, which keeps no wide copies for the backward pass.
        count, tokens = q_BSHD.shape[:2]
        starts = torch.arange(0, count * tokens + 1, tokens, dtype=torch.int32)
        return attend_documents(q_BSHD, k_BTKD, v_BTKD, Documents(starts, tokens))
    mixed_BHSD: Tensor = scaled_dot_product_attention(
        q_BSHD.transpose(1, 2).to(wide),
        k_BTKD.transpose(1, 2).to(wide),
        v_BTKD.transpose(1, 2).to(wide),
        attn_mask=mask.mask_B1ST,
        is_causal=mask.causal,
        enable_gqa=q_BSHD.shape[2] != k_BTKD.shape[2],
    )
    return mixed_BHSD.transpose(1, 2).flatten(2).to(q_BSHD.dtype)


class SelfAttention(nn.Module):
    """q, k, v, o projections around `attend`, with biases where shape.attention_bias says so (Qwen2: q, k, v).

    RMSNorm on each head of q and k when shape.qk_norm (Qwen3).
    """

    def __init__(self, shape: DecoderShape, layer: int, kernels: Kernels = "auto") -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels
        self.attend = attend  # compile_blocks puts one here that is not compiled
        self.head_size = shape.head_size
        qkv_bias, o_bias = shape.attention_bias != "none", shape.attention_bias == "qkvo"
        self.q_proj = Linear(shape.hidden_size, shape.query_size, qkv_bias)
        self.k_proj = Linear(shape.hidden_size, shape.key_value_size, qkv_bias)
        self.v_proj = Linear(shape.hidden_size, shape.key_value_size, qkv_bias)
        self.o_proj = Linear(shape.query_size, shape.hidden_size, o_bias)
        self.q_norm = RotaryNorm(shape.head_size, shape.norm_eps, kernels) if shape.qk_norm else None
        self.k_norm = RotaryNorm(shape.head_size, shape.norm_eps, kernels) if shape.qk_norm else None

    def forward(
        self, x_BSH: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, mask: AttentionMask, cache: KeyValueCache | None = None
    ) -> Tensor:
        q_BSHD, k_BSKD, v_BSKD = (
            projection(x_BSH).unflatten(-1, (-1, self.head_size))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BSHD = self.q_norm(q_BSHD, cos_BS1F, sin_BS1F)
            k_BSKD = self.k_norm(k_BSKD, cos_BS1F, sin_BS1F)
        else:
            q_BSHD, k_BSKD = rotate_pair(q_BSHD, k_BSKD, cos_BS1F, sin_BS1F, self.kernels)
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(self.layer, k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2))
            k_BSKD, v_BSKD = k_BKTD.transpose(1, 2), v_BKTD.transpose(1, 2)
        out: Tensor = self.o_proj(self.attend(q_BSHD, k_BSKD, v_BSKD, mask))
        return out
