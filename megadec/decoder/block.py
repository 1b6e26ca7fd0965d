"""One layer of the decoder: attention, then feed-forward, each normalized before and added after (pre-norm)."""

from torch import Tensor, nn
from torch.nn.functional import dropout

from megadec.decoder.attention import AttentionMask, SelfAttention
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.execution import PLAIN, Execution, Kernels
from megadec.decoder.kernels.swiglu import swiglu
from megadec.decoder.layers import AddRMSNorm, Linear
from megadec.decoder.recompute import in_tiles
from megadec.decoder.shape import DecoderShape

# Shapes: B batch, S sequence, H hidden size, F head size / 2.


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) (arXiv 2002.05202), of `tile_tokens` tokens at a time where that is not 0.

    Gate and up are two products, so that parameters keep the names and shapes of Llama and Qwen3.
    """

    def __init__(self, shape: DecoderShape, kernels: Kernels = "auto", tile_tokens: int = 0) -> None:
        super().__init__()
        self.kernels = kernels
        self.tile_tokens = tile_tokens
        self.gate_proj = Linear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = Linear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = Linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, x_BSH: Tensor) -> Tensor:
        return in_tiles(self._whole, x_BSH, self.tile_tokens) if self.tile_tokens else self._whole(x_BSH)

    def _whole(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x), self.kernels))
        return down


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); in training `dropout` of what is added is left out."""

    def __init__(self, shape: DecoderShape, layer: int, dropout: float = 0.0, execution: Execution = PLAIN) -> None:
        super().__init__()
        self.dropout = dropout
        self.input_layernorm = AddRMSNorm(shape.hidden_size, shape.norm_eps, execution.kernels)
        self.self_attn = SelfAttention(shape, layer, execution.kernels)
        self.post_attention_layernorm = AddRMSNorm(shape.hidden_size, shape.norm_eps, execution.kernels)
        self.mlp = SwiGLU(shape, execution.kernels, execution.mlp_tile_tokens)

    def forward(
        self, x_BSH: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, mask: AttentionMask, cache: KeyValueCache | None = None
    ) -> Tensor:
        x_BSH, normed_BSH = self.input_layernorm(x_BSH)
        attended_BSH = self._dropout(self.self_attn(normed_BSH, cos_BS1F, sin_BS1F, mask, cache))
        x_BSH, normed_BSH = self.post_attention_layernorm(x_BSH, attended_BSH)
        return x_BSH + self._dropout(self.mlp(normed_BSH))

    def _dropout(self, branch: Tensor) -> Tensor:
        return dropout(branch, self.dropout) if self.training and self.dropout else branch
