"""silu(gate) * up in Triton: forward reads two numbers and writes one, backward reads three and writes two.

In and out: as in `swiglu.py`, whose functions call this. Silu is rounded to the tensors' dtype before the product, as
torch does; going backward only the results are rounded.
"""

# Triton has no types: kernels are functions of pointers and numbers.
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators

import torch
from torch import Tensor

from megadec.decoder.kernels.triton_launch import tl, triton

ELEMENTS = 4096  # of a program


@triton.jit
def _forward(gate_ptr, up_ptr, out_ptr, elements, E: tl.constexpr):
    at_E = tl.program_id(0).to(tl.int64) * E + tl.arange(0, E)
    inside_E = at_E < elements
    gate_E = tl.load(gate_ptr + at_E, mask=inside_E, other=0.0)
    up_E = tl.load(up_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    wide_E = gate_E.to(tl.float32)
    silu_E = (wide_E * tl.sigmoid(wide_E)).to(gate_E.dtype).to(tl.float32)
    tl.store(out_ptr + at_E, (silu_E * up_E).to(gate_E.dtype), mask=inside_E)


@triton.jit
def _backward(gate_ptr, up_ptr, gradient_ptr, gate_gradient_ptr, up_gradient_ptr, elements, E: tl.constexpr):
    at_E = tl.program_id(0).to(tl.int64) * E + tl.arange(0, E)
    inside_E = at_E < elements
    gate_E = tl.load(gate_ptr + at_E, mask=inside_E, other=0.0)
    up_E = tl.load(up_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    g_E = tl.load(gradient_ptr + at_E, mask=inside_E, other=0.0).to(tl.float32)
    wide_E = gate_E.to(tl.float32)
    sigmoid_E = tl.sigmoid(wide_E)
    silu_E = wide_E * sigmoid_E
    tl.store(up_gradient_ptr + at_E, (g_E * silu_E).to(gate_E.dtype), mask=inside_E)
    slope_E = sigmoid_E * (1.0 - silu_E) + silu_E
    tl.store(gate_gradient_ptr + at_E, (g_E * up_E * slope_E).to(gate_E.dtype), mask=inside_E)


def forward(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    if gate.numel():
        _forward[(triton.cdiv(gate.numel(), ELEMENTS),)](gate, up, out, gate.numel(), E=ELEMENTS, num_warps=8)
    return out


def backward(gate: Tensor, up: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of gate and up."""
    gate, up, gradient = gate.contiguous(), up.contiguous(), gradient.contiguous()
    gate_gradient, up_gradient = torch.empty_like(gate), torch.empty_like(up)
    if gate.numel():
        _backward[(triton.cdiv(gate.numel(), ELEMENTS),)](
            gate, up, gradient, gate_gradient, up_gradient, gate.numel(), E=ELEMENTS, num_warps=8
        )
    return gate_gradient, up_gradient
