"""Matrices made ready for decoding: products with a few rows, where reading the weights is all that takes time.

On a CPU oneDNN's own layout reads them at the memory's speed, and gives a row the same result however many rows there
are, from two on. int8: each output's weights and each token's inputs are rounded to 255 steps of their largest value,
multiplied exactly, and scaled back (LLM.int8() without its outliers, arXiv 2208.07339).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from megadec.common.errors import ConfigError

WeightDtype = Literal["float32", "bfloat16", "int8"]
# From so many rows on, oneDNN computes each as it would any other number of them.
LEAST_ROWS = 2
_STEPS = 127.0
_ROWS_HINT = 8  # oneDNN orders the weights for about so many rows

# Shapes: R rows, I inputs, O outputs.

Product = Callable[[Tensor], Tensor]


def pack(weights_OI: Sequence[Tensor], biases_O: Sequence[Tensor | None], dtype: WeightDtype) -> Product:
    """x_RI -> x W^T + b for matrices with the same inputs, their outputs one behind the other.

    Raises ConfigError for int8 off the CPU.
    """
    weight_OI = torch.cat(list(weights_OI)) if len(weights_OI) > 1 else weights_OI[0]
    biases = [bias for bias in biases_O if bias is not None]
    assert len(biases) in (0, len(weights_OI)), "products that are joined all have a bias, or none has"
    bias_O = torch.cat(biases) if biases else None
    if dtype == "int8":
        if weight_OI.device.type != "cpu":
            raise ConfigError("--dtype int8 is for the CPU; on other devices take bfloat16")
        return _Int8(weight_OI, bias_O)
    if weight_OI.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return _OneDnn(weight_OI, bias_O)
    return lambda x_RI: F.linear(x_RI, weight_OI, bias_O)


class _OneDnn:
    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), _ROWS_HINT)
        self._bias_O = bias_O

    def __call__(self, x_RI: Tensor) -> Tensor:
        out_RO: Tensor = torch.ops.mkldnn._linear_pointwise(x_RI, self._weight, self._bias_O, "none", [], "")
        return out_RO


class _Int8:
    def __init__(self, weight_OI: Tensor, bias_O: Tensor | None) -> None:
        wide_OI = weight_OI.float()
        self._scale_O = wide_OI.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / _STEPS
        self._weight_OI = (wide_OI / self._scale_O[:, None]).round_().to(torch.int8)
        self._bias_O = bias_O

    def __call__(self, x_RI: Tensor) -> Tensor:
        scale_R1 = x_RI.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / _STEPS
        rounded_RI = (x_RI / scale_R1).round_().to(torch.int8)
        out_RO = torch._int_mm(rounded_RI, self._weight_OI.T).float().mul_(scale_R1).mul_(self._scale_O)
        return out_RO if self._bias_O is None else out_RO + self._bias_O
