"""The precision that sums are taken in.

In: tensors of the model's dtype. Out: the same in float32. Trade-off: bfloat16 is widened piece by piece and not for a
whole tensor, which leaves the widening to those who call.
"""

from __future__ import annotations

import torch
from torch import Tensor


def wide_dtype(x: Tensor) -> torch.dtype:
    """float32, or x's dtype when it is wider (float64 in tests)."""
    return torch.promote_types(x.dtype, torch.float32)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or as it is when it is wider (float64 in tests)."""
    return x.to(wide_dtype(x))
