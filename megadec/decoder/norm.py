"""Root mean square normalisation (arXiv 1910.07467).

In and out: activations of any leading shape in the model's dtype. Trade-off: the mean is taken in float32 whatever the
dtype, which costs a conversion and keeps bfloat16 runs stable; the order of roundings is that of Hugging Face.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or as it is when it is wider (float64 in tests)."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RMSNorm(nn.Module):
    """y = weight * x / sqrt(mean(x^2) + eps) over the last dimension, whose length is `size`."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = at_least_float32(x)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)
