"""Attention by blocks of queries on a CPU, against float64 and against torch in the same precision."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from megadec.decoder.document_attention import Documents, attend_documents
from megadec.decoder.kernels.cpu_attention import (
    BLOCK_QUERIES,
    LEAST_TOKENS,
    attend_blocks_backward,
    attend_blocks_forward,
)

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


def by_torch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.MATH):
        heads_first = (x.transpose(1, 2) for x in (q, k, v))
        return scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True).transpose(1, 2)


def with_gradients(attend: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    *inputs, gradient = tensors
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = attend(*inputs)
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


@pytest.mark.parametrize("size", SIZES)
def test_in_double_precision_it_is_torchs_attention(size: tuple[int, ...]) -> None:
    tensors = given(size, torch.float64)
    assert max(errors(by_blocks(tensors), with_gradients(by_torch, tensors))) < 1e-14


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_the_error_is_no_larger_than_torchs_in_the_same_precision(size: tuple[int, ...], dtype: torch.dtype) -> None:
    tensors = given(size, dtype)
    truth = with_gradients(by_torch, [x.double() for x in tensors])
    ours, torchs = errors(by_blocks(tensors), truth), errors(with_gradients(by_torch, tensors), truth)
    # One rounding of the result is within what the type can say.
    assert all(mine <= 1.2 * theirs + torch.finfo(dtype).eps / 4 for mine, theirs in zip(ours, torchs, strict=True))


def test_no_token_sees_what_is_behind_it() -> None:
    q, k, v, gradient = given((1, 300, 4, 2, 16), torch.bfloat16)
    seen = by_blocks([q, k, v, gradient])[0]
    k[:, 200:], v[:, 200:] = 7, -7
    changed = by_blocks([q, k, v, gradient])[0]
    assert torch.equal(seen[:, :200], changed[:, :200])
    assert not torch.equal(seen[:, 200:], changed[:, 200:])


def test_packed_long_documents_are_attended_as_if_alone() -> None:
    lengths = [LEAST_TOKENS, LEAST_TOKENS, 44, 300]
    tensors = given((1, sum(lengths), 4, 2, 16), torch.bfloat16)
    starts = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    documents = Documents(starts, 512)
    packed = with_gradients(lambda q, k, v: attend_documents(q, k, v, documents).unflatten(-1, (4, 16)), tensors)
    for first, length in zip(starts.tolist(), lengths, strict=False):
        alone = [x[:, first : first + length] for x in tensors]
        truth = with_gradients(by_torch, [x.double() for x in alone])
        assert max(errors([x[:, first : first + length] for x in packed], truth)) < 0.01
