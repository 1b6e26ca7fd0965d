"""Attention by blocks of queries on a CPU, against float64 and against torch in the same precision."""

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from megadec.decoder.kernels.cpu_attention import BLOCK_QUERIES, attend_blocks_backward, attend_blocks_forward

# documents, tokens, query heads, key heads, head size
SIZES = [(2, 300, 4, 2, 16), (1, 512, 6, 3, 24), (3, BLOCK_QUERIES, 2, 2, 8), (2, 1, 2, 1, 8), (1, 257, 2, 1, 64)]


def given(size: tuple[int, ...], dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and the gradient of the result."""
    documents, tokens, heads, key_heads, head_size = size
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(documents, tokens, h, head_size, generator=generator).to(dtype)
        for h in (heads, key_heads, key_heads, heads)
    ]


def by_torch(tensors: list[Tensor]) -> list[Tensor]:
    """The result and the gradients of q, k and v."""
    *inputs, gradient = tensors
    inputs = [x.detach().requires_grad_() for x in inputs]
    with sdpa_kernel(SDPBackend.MATH):
        heads_first = (x.transpose(1, 2) for x in inputs)
        out = scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True).transpose(1, 2)
    return [out.detach(), *torch.autograd.grad(out, inputs, gradient)]


def by_blocks(tensors: list[Tensor]) -> list[Tensor]:
    q, k, v, gradient = tensors
    out, gradients = torch.full_like(q, torch.nan), tuple(torch.full_like(x, torch.nan) for x in (q, k, v))
    attend_blocks_forward(q, k, v, out)
    attend_blocks_backward(gradient, q, k, v, (gradients[0], gradients[1], gradients[2]))
    return [out, *gradients]


def errors(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    pairs = zip(found, truth, strict=True)
    return [float((one.double() - true).norm() / true.norm().clamp_min(1e-9)) for one, true in pairs]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_the_error_is_no_larger_than_torchs_in_the_same_precision(size: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = given(size, dtype)
    truth = by_torch([x.double() for x in tensors])
    ours, torchs = errors(by_blocks(tensors), truth), errors(by_torch(tensors), truth)
    # One rounding of the result is within what the type can say.
    assert all(mine <= 1.2 * theirs + torch.finfo(dtype).eps / 4 for mine, theirs in zip(ours, torchs, strict=True))
