"""Cases of the fused cross-entropy and their errors against float64; run as a module, what Triton's interpreter gives.

TRITON_INTERPRET=1 python -m tests.support.cross_entropy_cases
"""

from __future__ import annotations

import itertools
import json

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.decoder.kernels.cross_entropy import losses_in_place
from tests.support.kernel_cases import DTYPES, rounding_to_nearest

# Tokens and vocabulary: odd, one, a whole block, several blocks and a rest, no tokens.
SIZES = ((5, 37), (1, 1), (3, 1024), (2, 40001), (0, 37))
# Label smoothing and z-loss.
LOSSES = ((0.0, 0.0), (0.1, 0.0), (0.0, 0.01), (0.2, 0.001))
CASES = list(itertools.product(SIZES, DTYPES, LOSSES))


def drawn(size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Logits in a tensor with longer rows, so that a row does not begin where the last one ends; targets; weights, of
    which some are 0."""
    torch.manual_seed(sum(size))
    tokens, vocabulary = size
    logits = (3 * torch.randn(tokens, vocabulary + 3)).to(dtype)[:, :vocabulary]
    weights = torch.rand(tokens) * (torch.rand(tokens) > 0.3)
    return logits, torch.randint(0, vocabulary, (tokens,)), weights


def formula(
    logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float, z_loss: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Nats and gradient by torch's cross_entropy and autograd, computed in `dtype`."""
    leaf = logits.detach().clone().requires_grad_()
    wide = leaf.to(dtype)
    nats = cross_entropy(wide, targets, reduction="none", label_smoothing=label_smoothing)
    nats = nats + z_loss * wide.logsumexp(-1).square()
    [gradient] = torch.autograd.grad((nats * weights.to(dtype)).sum(), leaf)
    return nats.detach(), gradient


def errors(
    size: tuple[int, int], dtype: torch.dtype, loss: tuple[float, float], *, triton: bool
) -> list[tuple[float, float]]:
    """(ours, torch's in the same precision) for nats and gradient: the norm of the difference over that of float64."""
    logits, targets, weights = drawn(size, dtype)
    truth = formula(logits.double(), targets, weights, *loss, torch.float64)
    theirs = formula(logits, targets, weights, *loss, torch.float32)
    ours = ours_of(logits, targets, weights, loss, triton=triton)
    return [(_error(one, true), _error(other, true)) for one, other, true in zip(ours, theirs, truth, strict=True)]


def ours_of(
    logits: Tensor, targets: Tensor, weights: Tensor, loss: tuple[float, float], *, triton: bool
) -> tuple[Tensor, Tensor]:
    """Nats and gradient by `losses_in_place`; what lies between the rows is checked to be as it was."""
    longer = torch.nn.functional.pad(logits, (0, 3), value=7.0)
    rows = longer[:, : logits.shape[1]]
    nats = losses_in_place(rows, targets, weights, *loss, gradient=True, triton=triton)
    assert bool((longer[:, logits.shape[1] :] == 7.0).all())
    return nats, rows


def _error(found: Tensor, true: Tensor) -> float:
    if not true.numel() or not float(true.norm()):
        return float(found.double().norm())
    return float((found.double() - true).norm() / true.norm())


def main() -> None:
    with rounding_to_nearest():
        print(json.dumps([errors(size, DTYPES[dtype], loss, triton=True) for size, dtype, loss in CASES]))


if __name__ == "__main__":
    main()
