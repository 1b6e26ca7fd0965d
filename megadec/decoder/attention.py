"""Grouped-query causal attention that does not cross documents.

In: activations and a `Layout` (which token may look at which), made once a batch. Out: activations of the same shape.
Trade-off: three ways to respect documents, chosen by device. On a CPU each document is attended alone, because the
fused CPU kernel computes every score of a masked row and skips the upper triangle only when it is told `is_causal`;
on CUDA one boolean mask serves all layers, which needs no copy of lengths to the host. A kernel for rows of several
lengths belongs in `attend`, beside these.
"""

from __future__ import annotations

import dataclasses
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from megadec.decoder.cache import KeyValueCache
from megadec.decoder.kernels.choose import Kernels
from megadec.decoder.kernels.rotary import rotate_pair
from megadec.decoder.linear import Linear
from megadec.decoder.norm import RotaryNorm
from megadec.decoder.sequence import SequenceRanks
from megadec.decoder.shape import DecoderShape

# Shapes: B batch, S new tokens, T tokens so far, H query heads, K key-value heads, D head size, N = B * S.


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which tokens a token sees. Of the first three at most one is set; with none, all earlier tokens and itself.

    lengths: tokens of each document in reading order of the batch [B, S], each inside a row.
    mask_B1ST: True where the query may see the key.
    everything: the (single) new token sees all tokens so far.
    sequence: the ranks that hold the parts of the rows; the other fields are then of whole rows.
    """

    lengths: tuple[int, ...] | None = None
    mask_B1ST: Tensor | None = None
    everything: bool = False
    sequence: SequenceRanks | None = None

    @property
    def causal(self) -> bool:
        """Whether each token sees all earlier tokens of its row and itself, and nothing else needs saying."""
        return self.lengths is None and self.mask_B1ST is None and not self.everything


CAUSAL = Layout()


def document_starts(documents_BS: Tensor) -> Tensor:
    """Index in the row of the first token of each token's document, int64 [B, S]. A document is a run of one number."""
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    begins_BS = torch.ones_like(documents_BS, dtype=torch.bool)
    begins_BS[:, 1:] = documents_BS[:, 1:] != documents_BS[:, :-1]
    return torch.where(begins_BS, columns_S, 0).cummax(dim=1).values


def document_layout(documents_BS: Tensor) -> Layout:
    """The layout for packed rows: causal inside each run of one document number, nothing across."""
    if documents_BS.device.type != "cpu":
        return Layout(mask_B1ST=document_mask(documents_BS))
    starts_BS = document_starts(documents_BS)
    return Layout(lengths=_lengths(starts_BS)) if bool(starts_BS.any()) else CAUSAL


def document_mask(documents_BS: Tensor) -> Tensor:
    """mask_B1SS, True where the key is in the query's document and not behind it."""
    starts_BS = document_starts(documents_BS)
    columns_S = torch.arange(documents_BS.shape[1], device=documents_BS.device)
    causal_SS = columns_S[:, None] >= columns_S[None, :]
    return (causal_SS & (columns_S >= starts_BS[:, :, None])).unsqueeze(1)


def _lengths(starts_BS: Tensor) -> tuple[int, ...]:
    columns_S = torch.arange(starts_BS.shape[1], device=starts_BS.device)
    begins_N = (starts_BS == columns_S).flatten().nonzero().flatten()
    ends_N = torch.cat([begins_N[1:], begins_N.new_tensor([starts_BS.numel()])])
    return tuple((ends_N - begins_N).tolist())


def cached_layout(new_tokens: int, seen_tokens: int, device: torch.device) -> Layout:
    """The layout for `new_tokens` behind `seen_tokens` in a cache."""
    if seen_tokens == 0:
        return CAUSAL
    if new_tokens == 1:
        return Layout(everything=True)
    ones_ST = torch.ones(new_tokens, seen_tokens + new_tokens, dtype=torch.bool, device=device)
    return Layout(mask_B1ST=ones_ST.tril(diagonal=seen_tokens)[None, None])


def attend(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, layout: Layout) -> Tensor:
    """softmax(q k^T / sqrt(D)) v over what the layout lets each token see; [B, S, H * D]."""
    if layout.sequence is not None:
        whole = dataclasses.replace(layout, sequence=None)
        return layout.sequence.attend(lambda q, k, v: attend(q, k, v, whole), q_BSHD, k_BTKD, v_BTKD)
    if layout.lengths is not None:
        return _attend_each_document(q_BSHD, k_BTKD, v_BTKD, layout.lengths)
    mixed_BHSD: Tensor = scaled_dot_product_attention(
        q_BSHD.transpose(1, 2),
        k_BTKD.transpose(1, 2),
        v_BTKD.transpose(1, 2),
        attn_mask=layout.mask_B1ST,
        is_causal=layout.causal,
        enable_gqa=q_BSHD.shape[2] != k_BTKD.shape[2],
    )
    return mixed_BHSD.transpose(1, 2).flatten(2)


def _attend_each_document(q_BSHD: Tensor, k_BSKD: Tensor, v_BSKD: Tensor, lengths: tuple[int, ...]) -> Tensor:
    # split, not slices: the gradient of a split is one concatenation, that of a slice is a row of zeros for each
    # document. In float32: for short documents the CPU kernel's bf16 gradient costs several times as much.
    wide = (x.flatten(0, 1).to(torch.promote_types(x.dtype, torch.float32)) for x in (q_BSHD, k_BSKD, v_BSKD))
    # Neighbours of one length are attended as a batch: short texts, packed longest first, are mostly such.
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    pieces = zip(*(x.split([length * count for length, count in runs]) for x in wide), strict=True)
    mixed = []
    for (length, count), qkv in zip(runs, pieces, strict=True):
        q, k, v = (x.unflatten(0, (count, length)) for x in qkv)
        mixed.append(attend(q, k, v, CAUSAL).flatten(0, 1))
    mixed_NHD = torch.cat(mixed)
    out_BSHD: Tensor = mixed_NHD.to(q_BSHD.dtype).unflatten(0, q_BSHD.shape[:2])
    return out_BSHD


class SelfAttention(nn.Module):
    """q, k, v, o projections around `attend`; RMSNorm on each head of q and k when shape.qk_norm (Qwen3)."""

    def __init__(self, shape: DecoderShape, layer: int, kernels: Kernels = "auto") -> None:
        super().__init__()
        self.layer = layer
        self.kernels = kernels
        self.head_size = shape.head_size
        self.q_proj = Linear(shape.hidden_size, shape.query_size)
        self.k_proj = Linear(shape.hidden_size, shape.key_value_size)
        self.v_proj = Linear(shape.hidden_size, shape.key_value_size)
        self.o_proj = Linear(shape.query_size, shape.hidden_size)
        self.q_norm = RotaryNorm(shape.head_size, shape.norm_eps, kernels) if shape.qk_norm else None
        self.k_norm = RotaryNorm(shape.head_size, shape.norm_eps, kernels) if shape.qk_norm else None

    def forward(
        self,
        x: Tensor,
        cos_BS1F: Tensor,
        sin_BS1F: Tensor,
        layout: Layout,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        q_BSHD, k_BSKD, v_BSKD = (
            projection(x).unflatten(-1, (-1, self.head_size)) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.q_norm is not None and self.k_norm is not None:
            q_BSHD = self.q_norm(q_BSHD, cos_BS1F, sin_BS1F)
            k_BSKD = self.k_norm(k_BSKD, cos_BS1F, sin_BS1F)
        else:
            q_BSHD, k_BSKD = rotate_pair(q_BSHD, k_BSKD, cos_BS1F, sin_BS1F, self.kernels)
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(self.layer, k_BSKD.transpose(1, 2), v_BSKD.transpose(1, 2))
            k_BSKD, v_BSKD = k_BKTD.transpose(1, 2), v_BKTD.transpose(1, 2)
        out: Tensor = self.o_proj(attend(q_BSHD, k_BSKD, v_BSKD, layout))
        return out
