"""Root mean square normalisation (arXiv 1910.07467): three modules, one for each place that a norm stands in.

In and out: activations of any leading shape in the model's dtype. What stands beside a norm in the decoder (the
residual addition before it, the rotation behind it) is computed in the forward of the module that owns the weight,
because ZeRO-3 has the weight whole only there; in return it is one pass over memory. The mean is taken in float32
whatever the dtype; the order of roundings is that of Hugging Face.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from megadec.decoder.kernels.choose import Kernels
from megadec.decoder.kernels.norm import rms_norm, stream_norm
from megadec.decoder.kernels.precision import at_least_float32 as at_least_float32
from megadec.decoder.kernels.rotary import norm_rotate


class _Norm(nn.Module):
    def __init__(self, size: int, eps: float, kernels: Kernels = "auto") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.kernels = kernels


class RMSNorm(_Norm):
    """y = weight * x / sqrt(mean(x^2) + eps) over the last dimension, whose length is `size`."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, self.kernels)


class StreamNorm(_Norm):
    """The residual stream and its norm: (x + added, norm(x + added)), or (x, norm(x)).

    What comes behind takes the first in place of x: the gradient of the stream is then added in the norm's own pass.
    """

    def forward(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return stream_norm(x, added, self.weight, self.eps, self.kernels)


class RotaryNorm(_Norm):
    """The norm of each head [B, S, H, size], rotated by its token's angle."""

    def forward(self, x_BSHD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor) -> Tensor:
        return norm_rotate(x_BSHD, self.weight, self.eps, cos_BS1F, sin_BS1F, self.kernels)
