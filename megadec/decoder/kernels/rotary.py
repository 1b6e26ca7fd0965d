"""RoPE (arXiv 2104.09864) of queries and keys, with the norm of each head before it when the model has one.

Kept for the backward pass: the cosines and sines, which all layers share; with a norm also the heads as they came and a
float32 number a head. Between norm and rotation nothing is rounded to bfloat16, so the two together are nearer to the
exact result than one after another.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from megadec.decoder.execution import Kernels
from megadec.decoder.kernels import norm
from megadec.decoder.kernels.choose import module_for, pieces
from megadec.decoder.kernels.norm import differentiate_piece, normalized
from megadec.decoder.kernels.precision import at_least_float32, wide_dtype

# Shapes: B batch, S sequence, N = B * S tokens, n tokens of a piece, r = n * H, H query heads, K key-value heads, D
# head size, F head size / 2.


def rotate_pair(
    q_BSHD: Tensor, k_BSKD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, kernels: Kernels = "auto"
) -> tuple[Tensor, Tensor]:
    """Queries and keys, each pair (i, i + F) rotated by its token's angle, in float32, and rounded to their dtype."""
    if torch.compiler.is_compiling():
        return formula(q_BSHD, cos_BS1F, sin_BS1F), formula(k_BSKD, cos_BS1F, sin_BS1F)
    q_BSHD, k_BSKD = _Rotate.apply(q_BSHD, k_BSKD, cos_BS1F, sin_BS1F, module_for("rotary", kernels, q_BSHD))
    return q_BSHD, k_BSKD


def norm_rotate(
    x_BSHD: Tensor, weight_D: Tensor, eps: float, cos_BS1F: Tensor, sin_BS1F: Tensor, kernels: Kernels = "auto"
) -> Tensor:
    """rms_norm of each head, then rotated, both in float32; the result is rounded to x's dtype."""
    if torch.compiler.is_compiling() or x_BSHD.dtype != weight_D.dtype:
        return norm_formula(x_BSHD, weight_D, eps, cos_BS1F, sin_BS1F)
    module = module_for("rotary", kernels, x_BSHD)
    out_BSHD: Tensor = _NormRotate.apply(x_BSHD, weight_D, eps, cos_BS1F, sin_BS1F, module)
    return out_BSHD


def formula(x_BSHD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor) -> Tensor:
    """What a rotation computes."""
    first, second = at_least_float32(x_BSHD).chunk(2, dim=-1)
    rotated = (first * cos_BS1F - second * sin_BS1F, second * cos_BS1F + first * sin_BS1F)
    return torch.cat(rotated, dim=-1).to(x_BSHD.dtype)


def norm_formula(x_BSHD: Tensor, weight_D: Tensor, eps: float, cos_BS1F: Tensor, sin_BS1F: Tensor) -> Tensor:
    """What a norm and a rotation compute together."""
    return formula(norm.formula(at_least_float32(x_BSHD), weight_D, eps), cos_BS1F, sin_BS1F).to(x_BSHD.dtype)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q_BSHD: Tensor, k_BSKD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, module: ModuleType
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(cos_BS1F, sin_BS1F)
        ctx.module = module
        q_BSHD, k_BSKD = module.rotate(q_BSHD, k_BSKD, cos_BS1F, sin_BS1F, 1)
        return q_BSHD, k_BSKD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, q_gradient: Tensor, k_gradient: Tensor) -> tuple[Tensor | None, ...]:
        # The transposed rotation is the one by the opposite angle.
        return (*ctx.module.rotate(q_gradient, k_gradient, *ctx.saved_tensors, -1), None, None, None)


class _NormRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BSHD: Tensor, weight_D: Tensor, eps: float, cos_BS1F: Tensor, sin_BS1F: Tensor, module: ModuleType
    ) -> Tensor:
        ctx.module = module
        out_BSHD: Tensor
        out_BSHD, inverse = module.forward(x_BSHD, weight_D, eps, cos_BS1F, sin_BS1F)
        ctx.save_for_backward(x_BSHD, weight_D, inverse, cos_BS1F, sin_BS1F)
        return out_BSHD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BSHD: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.module.backward(*ctx.saved_tensors, gradient_BSHD), None, None, None, None)


def rotate(q_BSHD: Tensor, k_BSKD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    """Queries and keys rotated by their tokens' angles, or by the opposite ones with sign -1."""
    return _rotated(q_BSHD, cos_BS1F, sin_BS1F, sign), _rotated(k_BSKD, cos_BS1F, sin_BS1F, sign)


def _rotated(x_BSHD: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, sign: int) -> Tensor:
    out_BSHD = torch.empty_like(x_BSHD, memory_format=torch.contiguous_format)
    x_NHD, out_NHD, cos_N1F, sin_N1F = (t.reshape(-1, *t.shape[2:]) for t in (x_BSHD, out_BSHD, cos_BS1F, sin_BS1F))
    for rows in pieces(x_NHD.shape[0], x_NHD[:1].numel(), x_BSHD.device):
        out_NHD[rows] = _turned(at_least_float32(x_NHD[rows]), cos_N1F[rows], sin_N1F[rows], sign)
    return out_BSHD


def _turned(wide_NHD: Tensor, cos_N1F: Tensor, sin_N1F: Tensor, sign: int) -> Tensor:
    out_NHD = torch.empty_like(wide_NHD, memory_format=torch.contiguous_format)
    (first, second), (out_first, out_second) = wide_NHD.chunk(2, dim=-1), out_NHD.chunk(2, dim=-1)
    torch.mul(first, cos_N1F, out=out_first).addcmul_(second, sin_N1F, value=-sign)
    torch.mul(second, cos_N1F, out=out_second).addcmul_(first, sin_N1F, value=sign)
    return out_NHD


def forward(x_BSHD: Tensor, weight_D: Tensor, eps: float, cos_BS1F: Tensor, sin_BS1F: Tensor) -> tuple[Tensor, Tensor]:
    """The rotated norm of x, and 1 / sqrt(mean(x^2) + eps) of each head, [N, H, 1] in float32."""
    out_BSHD = torch.empty_like(x_BSHD, memory_format=torch.contiguous_format)
    x_NHD, out_NHD, cos_N1F, sin_N1F = (t.reshape(-1, *t.shape[2:]) for t in (x_BSHD, out_BSHD, cos_BS1F, sin_BS1F))
    inverse_NH1 = x_NHD.new_empty(*x_NHD.shape[:2], 1, dtype=wide_dtype(x_BSHD))
    wide_weight_D = at_least_float32(weight_D)
    for rows in pieces(x_NHD.shape[0], x_NHD[:1].numel(), x_BSHD.device):
        wide_nHD = normalized(at_least_float32(x_NHD[rows]), inverse_NH1[rows], eps).mul_(wide_weight_D)
        out_NHD[rows] = _turned(wide_nHD, cos_N1F[rows], sin_N1F[rows], 1)
    return out_BSHD, inverse_NH1


def backward(
    x_BSHD: Tensor, weight_D: Tensor, inverse_NH1: Tensor, cos_BS1F: Tensor, sin_BS1F: Tensor, gradient_BSHD: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight."""
    out_BSHD = torch.empty_like(x_BSHD, memory_format=torch.contiguous_format)
    tensors = (x_BSHD, gradient_BSHD, out_BSHD, cos_BS1F, sin_BS1F)
    x_NHD, gradient_NHD, out_NHD, cos_N1F, sin_N1F = (t.reshape(-1, *t.shape[2:]) for t in tensors)
    wide_weight_D = at_least_float32(weight_D)
    weight_gradient_D = torch.zeros_like(wide_weight_D)
    for rows in pieces(x_NHD.shape[0], x_NHD[:1].numel(), x_BSHD.device):
        g_nHD = _turned(at_least_float32(gradient_NHD[rows]), cos_N1F[rows], sin_N1F[rows], -1)
        x_rD, inverse_r1, g_rD = x_NHD[rows].flatten(0, 1), inverse_NH1[rows].flatten(0, 1), g_nHD.flatten(0, 1)
        differentiate_piece(x_rD, wide_weight_D, inverse_r1, g_rD, weight_gradient_D)  # g_rD is a view
        out_NHD[rows] = g_nHD
    return out_BSHD, weight_gradient_D.to(weight_D.dtype)
