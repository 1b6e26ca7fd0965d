"""The SwiGLU feed-forward layer (arXiv 2002.05202).

In and out: activations [B, S, hidden_size]. Gate and up are two products, not one, so that the parameters keep the
names and shapes of Llama and Qwen3. Tiles bound the memory of a long sequence: what is between the products is then
held for a tile of tokens only, and computed a second time in the backward pass.
"""

from __future__ import annotations

from torch import Tensor, nn

from megadec.decoder.kernels.choose import Kernels
from megadec.decoder.kernels.swiglu import swiglu
from megadec.decoder.linear import Linear
from megadec.decoder.recompute import in_tiles
from megadec.decoder.shape import DecoderShape


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), of `tile_tokens` tokens at a time where that is not 0."""

    def __init__(self, shape: DecoderShape, kernels: Kernels = "auto", tile_tokens: int = 0) -> None:
        super().__init__()
        self.kernels = kernels
        self.tile_tokens = tile_tokens
        self.gate_proj = Linear(shape.hidden_size, shape.intermediate_size)
        self.up_proj = Linear(shape.hidden_size, shape.intermediate_size)
        self.down_proj = Linear(shape.intermediate_size, shape.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return in_tiles(self._whole, x, self.tile_tokens) if self.tile_tokens else self._whole(x)

    def _whole(self, x: Tensor) -> Tensor:
        down: Tensor = self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x), self.kernels))
        return down
