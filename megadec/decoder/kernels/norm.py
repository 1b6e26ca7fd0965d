"""RMSNorm (arXiv 1910.07467), alone or together with the residual addition before it.

Stream and norm leave one function, so that the stream's gradient is added inside the backward pass of the norm. Kept
for the backward pass: the stream (which the next layer keeps too) and a float32 number a row. Roundings are in Hugging
Face's order going forward; the gradient is rounded once, at its end.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.choose import module_for, pieces
from megadec.decoder.kernels.precision import at_least_float32, wide_dtype

# Shapes: N rows, H elements of a row; n rows of a piece.


def rms_norm(x: Tensor, weight_H: Tensor, eps: float, kernels: Kernels = "auto") -> Tensor:
    """weight * x / sqrt(mean(x^2) + eps) over the last dimension, in x's shape and dtype."""
    return stream_norm(x, None, weight_H, eps, kernels)[1]


def stream_norm(
    x: Tensor, added: Tensor | None, weight_H: Tensor, eps: float, kernels: Kernels = "auto"
) -> tuple[Tensor, Tensor]:
    """(x + added, rms_norm(x + added)); with None for `added`, x itself comes first.

    Use the first result in place of x behind this call: then its gradient costs no addition of its own.
    """
    if torch.compiler.is_compiling() or weight_H.dtype != x.dtype:
        stream = x if added is None else x + added
        return stream, formula(stream, weight_H, eps)
    stream, normed = _StreamNorm.apply(x, added, weight_H, eps, module_for("norm", kernels, x))
    return stream, normed


def formula(x: Tensor, weight_H: Tensor, eps: float) -> Tensor:
    """What the kernels compute, as Hugging Face writes it: the mean in float32, the weight applied in x's dtype."""
    wide = at_least_float32(x)
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return weight_H * wide.to(x.dtype)


class _StreamNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, added: Tensor | None, weight_H: Tensor, eps: float, module: ModuleType
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.module = module
        stream, normed, inverse_N1 = module.forward(x, added, weight_H, eps)
        ctx.save_for_backward(stream, weight_H, inverse_N1)
        return stream, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, stream_gradient: Tensor | None, normed_gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, weight_gradient_H = stream_gradient, None
        if normed_gradient is not None:
            arguments = (*ctx.saved_tensors, normed_gradient, stream_gradient, ctx.needs_input_grad[2])
            gradient, weight_gradient_H = ctx.module.backward(*arguments)
        return gradient, gradient if ctx.needs_input_grad[1] else None, weight_gradient_H, None, None


def forward(x: Tensor, added: Tensor | None, weight_H: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """The stream, its norm, equal to `formula` bit for bit, and 1 / sqrt(mean(x^2) + eps) of each row, [N, 1] in
    float32."""
    x = x if added is None else x + added
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    size = weight_H.shape[0]
    x_NH, out_NH = x.reshape(-1, size), out.view(-1, size)
    inverse_N1 = x.new_empty(x_NH.shape[0], 1, dtype=wide_dtype(x))
    for rows in pieces(x_NH.shape[0], size, x.device):
        out_NH[rows] = normalized(at_least_float32(x_NH[rows]), inverse_N1[rows], eps)
        out_NH[rows].mul_(weight_H)
    return x, out, inverse_N1


def normalized(wide: Tensor, inverse: Tensor, eps: float) -> Tensor:
    """A piece x / sqrt(mean(x^2) + eps) without its weight; 1 / the root of each row is written to `inverse`."""
    buffer = wide.square()
    torch.mean(buffer, -1, keepdim=True, out=inverse)
    inverse.add_(eps).rsqrt_()
    return torch.mul(wide, inverse, out=buffer)


def backward(
    x: Tensor, weight_H: Tensor, inverse_N1: Tensor, gradient: Tensor, also: Tensor | None, wants_weight: bool
) -> tuple[Tensor, Tensor | None]:
    """Gradients of x and of the weight; `also` is a further gradient of x, which is added before rounding."""
    size = weight_H.shape[0]
    x_NH, gradient_NH = x.reshape(-1, size), gradient.reshape(-1, size)
    also_NH = None if also is None else also.reshape(-1, size)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    out_NH = out.view(-1, size)
    wide_weight_H = at_least_float32(weight_H)
    weight_gradient_H = torch.zeros_like(wide_weight_H) if wants_weight else None
    for rows in pieces(x_NH.shape[0], size, x.device):
        g_NH = gradient_NH[rows].to(inverse_N1.dtype, copy=True)
        differentiate_piece(x_NH[rows], wide_weight_H, inverse_N1[rows], g_NH, weight_gradient_H)
        if also_NH is not None:
            g_NH.add_(also_NH[rows])
        out_NH[rows] = g_NH
    return out, None if weight_gradient_H is None else weight_gradient_H.to(weight_H.dtype)


def differentiate_piece(
    x_nH: Tensor, wide_weight_H: Tensor, inverse_n1: Tensor, g_nH: Tensor, weight_gradient_H: Tensor | None
) -> None:
    """Turn `g_nH`, the gradient of a piece's norm, into that of x; the weight's is added to `weight_gradient_H`."""
    normed_nH = x_nH * inverse_n1
    product_nH = g_nH * normed_nH
    if weight_gradient_H is not None:
        weight_gradient_H += product_nH.sum(0)
    share_n1 = torch.mv(product_nH, wide_weight_H).div_(wide_weight_H.shape[0]).unsqueeze(1)
    g_nH.mul_(wide_weight_H).addcmul_(normed_nH, share_n1, value=-1).mul_(inverse_n1)
