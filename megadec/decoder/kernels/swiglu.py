"""The product in a SwiGLU layer (arXiv 2002.05202): silu(gate) * up.

Kept for the backward pass: gate and up, and not silu(gate), which is computed again.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from megadec.decoder.execution import Kernels
from megadec.decoder.kernels.choose import module_for, pieces


def swiglu(gate: Tensor, up: Tensor, kernels: Kernels = "auto") -> Tensor:
    """silu(gate) * up, in their shape and dtype."""
    if torch.compiler.is_compiling() or gate.dtype != up.dtype:
        return formula(gate, up)
    out: Tensor = _SwiGLU.apply(gate, up, module_for("swiglu", kernels, gate))
    return out


def formula(gate: Tensor, up: Tensor) -> Tensor:
    """What the kernels compute."""
    return silu(gate) * up


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, module: ModuleType) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.module = module
        out: Tensor = module.forward(gate, up)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*ctx.module.backward(*ctx.saved_tensors, gradient), None)


def forward(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    return silu(gate).mul_(up)


def backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up. All in their own dtype: the CPU's kernels widen and round in registers."""
    outs = [torch.empty_like(gate, memory_format=torch.contiguous_format) for _ in range(2)]
    size = gate.shape[-1]
    gate_NI, up_NI, gradient_NI = (x.reshape(-1, size) for x in (gate, up, gradient))
    gate_gradient_NI, up_gradient_NI = (out.view(-1, size) for out in outs)
    for rows in pieces(gate_NI.shape[0], size, gate.device):
        inner_NI = torch.mul(gradient_NI[rows], up_NI[rows])
        torch.ops.aten.silu_backward(inner_NI, gate_NI[rows], grad_input=gate_gradient_NI[rows])
        torch.mul(silu(gate_NI[rows]), gradient_NI[rows], out=up_gradient_NI[rows])
    return outs[0], outs[1]
