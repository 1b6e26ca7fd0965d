"""One layer of the decoder: attention, then feed-forward, each normalised before and added after.

In and out: the residual stream [B, S, hidden_size]. Pre-norm, as Llama and Qwen3 have it; the stream itself is never
normalised until the last layer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout

from megadec.decoder.attention import Layout, SelfAttention
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.mlp import SwiGLU
from megadec.decoder.norm import StreamNorm
from megadec.decoder.shape import DecoderShape


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); in training `dropout` of what is added is left out."""

    def __init__(self, shape: DecoderShape, layer: int, dropout: float = 0.0, execution: Execution = PLAIN) -> None:
        super().__init__()
        self.dropout = dropout
        self.input_layernorm = StreamNorm(shape.hidden_size, shape.norm_eps, execution.kernels)
        self.self_attn = SelfAttention(shape, layer, execution.kernels)
        self.post_attention_layernorm = StreamNorm(shape.hidden_size, shape.norm_eps, execution.kernels)
        self.mlp = SwiGLU(shape, execution.kernels, execution.mlp_tile_tokens)

    def forward(
        self,
        x: Tensor,
        cos_BS1F: Tensor,
        sin_BS1F: Tensor,
        layout: Layout,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        x, normed = self.input_layernorm(x)
        attended = self._thinned(self.self_attn(normed, cos_BS1F, sin_BS1F, layout, cache))
        x, normed = self.post_attention_layernorm(x, attended)
        out: Tensor = x + self._thinned(self.mlp(normed))
        return out

    def _thinned(self, branch: Tensor) -> Tensor:
        return dropout(branch, self.dropout) if self.training and self.dropout else branch
