"""One layer of the decoder: attention, then feed-forward, each normalised before and added after.

In and out: the residual stream [B, S, hidden_size]. Trade-off: pre-norm, as Llama and Qwen3 have it; the stream
itself is never normalised until the last layer.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout

from megadec.decoder.attention import Layout, SelfAttention
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.mlp import SwiGLU
from megadec.decoder.norm import RMSNorm
from megadec.decoder.shape import DecoderShape


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); in training `dropout` of what is added is left out."""

    def __init__(self, shape: DecoderShape, layer: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.self_attn = SelfAttention(shape, layer)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.norm_eps)
        self.mlp = SwiGLU(shape)

    def forward(
        self,
        x: Tensor,
        cos_BS1F: Tensor,
        sin_BS1F: Tensor,
        layout: Layout,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        x = x + self._thinned(self.self_attn(self.input_layernorm(x), cos_BS1F, sin_BS1F, layout, cache))
        out: Tensor = x + self._thinned(self.mlp(self.post_attention_layernorm(x)))
        return out

    def _thinned(self, branch: Tensor) -> Tensor:
        return dropout(branch, self.dropout) if self.training and self.dropout else branch
