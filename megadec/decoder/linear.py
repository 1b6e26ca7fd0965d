"""Linear and embedding layers whose fresh weights are zero.

In: shapes. Out: layers as in torch. Torch's own random start costs minutes for billions of parameters and depends on
the order of construction, and is always overwritten here (by `initialize` or by a checkpoint); zeros are cheap and make
a forgotten initialisation visible (uniform logits) instead of plausible.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from megadec.decoder.kernels.precision import product_dtype


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b in x's dtype, multiplied in `product_dtype(x)`. x: [..., inputs]; weight: [outputs, inputs]."""
    if product_dtype(x) == x.dtype:
        return F.linear(x, weight, bias)
    y: Tensor = _WideLinear.apply(x, weight)
    return y if bias is None else y + bias


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in a's dtype, multiplied in `product_dtype(a)`."""
    wide = product_dtype(a)
    return (a.to(wide) @ b.to(wide)).to(a.dtype)


class Linear(nn.Linear):
    """y = x W^T, without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


class Embedding(nn.Embedding):
    """Row `id` of the weight for each id."""

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
