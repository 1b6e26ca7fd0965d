"""A bidirectional Transformer encoder: embedded source tokens in, their states out.

The blocks are the decoder's own (RMSNorm, RoPE, grouped-query attention, SwiGLU); only the layout differs: a token sees
every token of its source that is not padding. Sources are padded to the longest of the batch and not packed, because
the cross-attention of each target needs the memory of its own source.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megadec.common.errors import InputError
from megadec.decoder.attention import Layout
from megadec.decoder.block import Block
from megadec.decoder.norm import RMSNorm
from megadec.decoder.rope import rotations
from megadec.decoder.shape import DecoderShape

# Shapes: B batch, T source tokens, H hidden size.


def source_mask(source_lengths_B: Tensor, tokens: int) -> Tensor:
    """mask_BT, True at the first `length` tokens of each row: what is there, and not padding."""
    columns_T = torch.arange(tokens, device=source_lengths_B.device)
    return columns_T < source_lengths_B[:, None]


def source_layout(source_lengths_B: Tensor, tokens: int) -> Layout:
    """The layout by which any query sees the whole of its row's source, and no padding."""
    if source_lengths_B.device.type == "cpu" and int(source_lengths_B.min()) == tokens:
        return Layout(everything=True)  # without a mask the fused kernels are faster
    return Layout(mask_B1ST=source_mask(source_lengths_B, tokens)[:, None, None])


def check_source(source_ids_BT: Tensor, source_lengths_B: Tensor, max_position_embeddings: int) -> None:
    """Raise InputError for a source that is longer than the model's context, or, on a CPU, for one of no tokens."""
    tokens = source_ids_BT.shape[1]
    if tokens > max_position_embeddings:
        raise InputError(
            f"a source of {tokens} tokens does not fit: the model's context is {max_position_embeddings} tokens"
        )
    if source_lengths_B.device.type == "cpu" and not bool(
        ((source_lengths_B > 0) & (source_lengths_B <= tokens)).all()
    ):
        raise InputError(f"source lengths {source_lengths_B.tolist()} are not all from 1 to {tokens}, the row's tokens")


class Encoder(nn.Module):
    """Blocks and a last norm; `shape.layers` of them."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.ModuleList(Block(shape, layer) for layer in range(shape.layers))
        self.norm = RMSNorm(shape.hidden_size, shape.norm_eps)

    def forward(self, x_BTH: Tensor, layout: Layout) -> Tensor:
        """The normalised states [B, T, H] of embedded tokens; those of padding mean nothing."""
        shape = self.shape
        positions_BT = torch.arange(x_BTH.shape[1], device=x_BTH.device).expand(x_BTH.shape[:2])
        cos_BT1F, sin_BT1F = rotations(positions_BT, shape.head_size, shape.rope_theta, shape.max_position_embeddings)
        for block in self.layers:
            x_BTH = block(x_BTH, cos_BT1F, sin_BT1F, layout=layout)
        memory_BTH: Tensor = self.norm(x_BTH)
        return memory_BTH
