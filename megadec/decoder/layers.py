"""The layers that blocks are made of: linear, embedding, RMSNorm, and the angles of rotary positions.

Fresh matrices are zero: torch's own random start costs minutes for billions of parameters and is overwritten anyway (by
initialize.py or a checkpoint), and zeros make a forgotten initialization visible (uniform logits).
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.norm import rms_norm, stream_norm
from megadec.decoder.kernels.precision import matmul_dtype
from megadec.decoder.kernels.rotary import norm_rotate
from megadec.decoder.rope_scaling import RopeScaling

# Shapes: B batch, S sequence, H heads, D head size, F head size / 2, T rows of a table.


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b in x's dtype, multiplied in `matmul_dtype(x)`. x: [..., inputs]; weight: [outputs, inputs]."""
    if matmul_dtype(x) == x.dtype:
        return F.linear(x, weight, bias)
    y: Tensor = _WideLinear.apply(x, weight)
    return y if bias is None else y + bias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in a's dtype, multiplied in `matmul_dtype(a)`."""
    wide = matmul_dtype(a)
    return (a.to(wide) @ b.to(wide)).to(a.dtype)


class Linear(nn.Linear):
    """y = x W^T, and + b where there is a bias."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)

    def reset_parameters(self) -> None:
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Embedding(nn.Embedding):
    """Row `id` of the weight for each id."""

    weight: nn.Parameter

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)


class _WideLinear(torch.autograd.Function):
    """x W^T multiplied in float32 and rounded to x's dtype; so are the gradients.

    x and W are saved as they came: autograd alone would keep the float32 copies of both until the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.matmul(x.float(), weight.float().T).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wide = gradient.float()
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.matmul(wide, weight.float()).to(x.dtype)
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.mm(wide.flatten(0, -2).T, x.flatten(0, -2).float()).to(weight.dtype)
        return x_gradient, weight_gradient


class _Norm(nn.Module):
    """Operations fused with a norm run in its module's forward, because ZeRO-3 gathers the weight only there."""

    def __init__(self, size: int, eps: float, kernels: Kernels = "auto") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.kernels = kernels


class RMSNorm(_Norm):
    """y = weight * x / sqrt(mean(x^2) + eps) over the last dimension, whose length is `size` (arXiv 1910.07467)."""

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, self.kernels)


class AddRMSNorm(_Norm):
    """The residual stream and its norm: (x + added, norm(x + added)), or (x, norm(x)).

    What follows takes the first in place of x: the gradient of the stream is then added in the norm's own pass.
    """

    def forward(self, x: Tensor, added: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return stream_norm(x, added, self.weight, self.eps, self.kernels)


class RotaryNorm(_Norm):
    """The norm of each head [B, S, H, size], rotated by its token's angle."""

    def forward(self, x_BSHD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor) -> Tensor:
        return norm_rotate(x_BSHD, self.weight, self.eps, cos_BS1F, sin_BS1F, self.kernels)


@functools.lru_cache(maxsize=16)
def rope_table(
    head_size: int, theta: float, tokens: int, device: torch.device, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """cos_TF and sin_TF of rotary positions 0 .. tokens - 1 (arXiv 2104.09864), float32.

    The pair (i, i + head_size / 2) is rotated together, as in Hugging Face's layout. The tables lie outside the module,
    so that a model cast to bfloat16 does not round its positions. They are multiplied by `scaling.magnitude`, so what
    they rotate is too.
    """
    # Computed in float64 on the host: the same table on every device. inference_mode(False) because a table that is
    # first made while generating must also serve training.
    with torch.inference_mode(False), torch.device("cpu"):
        frequencies_F = theta ** -(torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
        magnitude = 1.0
        if scaling is not None:
            frequencies_F = torch.tensor(scaling.frequencies(frequencies_F.tolist(), theta), dtype=torch.float64)
            magnitude = scaling.magnitude
        angles_TF = torch.outer(torch.arange(tokens, dtype=torch.float64), frequencies_F)
        cos_TF, sin_TF = angles_TF.cos() * magnitude, angles_TF.sin() * magnitude
        return cos_TF.float().to(device), sin_TF.float().to(device)


def rotations(
    positions_BS: Tensor, head_size: int, theta: float, tokens: int, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """cos_BS1F and sin_BS1F of each token's position, float32; made once a batch and shared by all layers."""
    cos_TF, sin_TF = rope_table(head_size, theta, tokens, positions_BS.device, scaling)
    return cos_TF[positions_BS].unsqueeze(2), sin_TF[positions_BS].unsqueeze(2)
