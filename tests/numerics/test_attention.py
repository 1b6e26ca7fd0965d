"""Attention against its definition, written out in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from megadec.decoder.attention import CAUSAL, Layout, attend, cached_layout, document_layout, document_mask

DOCUMENTS = torch.tensor(
    [
        [0] * 5 + [1] * 1 + [2] * 11 + [3] * 4,
        [0] * 21,
        [4] * 20 + [9] * 1,
        [0] * 3 + [1] * 3 + [0] * 15,  # the same number again after another is another document
    ]
)


def naive(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, sees_BST: Tensor) -> Tensor:
    """Each head of each row by itself; query head h reads key-value head h // (H / K)."""
    rows, tokens, heads, size = q_BSHD.shape
    group = heads // k_BTKD.shape[2]
    out = torch.empty(rows, tokens, heads, size, dtype=torch.float64)
    for b in range(rows):
        for h in range(heads):
            q, k, v = (x.double() for x in (q_BSHD[b, :, h], k_BTKD[b, :, h // group], v_BTKD[b, :, h // group]))
            scores = (q @ k.T / math.sqrt(size)).masked_fill(~sees_BST[b], -math.inf)
            out[b, :, h] = scores.softmax(-1) @ v
    return out.flatten(2)


def sees(documents_BS: Tensor) -> Tensor:
    rows, tokens = documents_BS.shape
    out = torch.zeros(rows, tokens, tokens, dtype=torch.bool)
    for b in range(rows):
        for s in range(tokens):
            t = s
            while t >= 0 and documents_BS[b, t] == documents_BS[b, s]:
                out[b, s, t] = True
                t -= 1
    return out


def mask_layout(documents_BS: Tensor) -> Layout:
    """What document_layout gives on an accelerator."""
    return Layout(mask_B1ST=document_mask(documents_BS))


def tensors(tokens: int, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(4, tokens, n, 16, dtype=dtype).requires_grad_() for n in (heads, kv_heads, kv_heads)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("make_layout", [document_layout, mask_layout])
def test_grouped_query_attention_within_documents_is_its_definition(
    make_layout: Callable[[Tensor], Layout], heads: int, kv_heads: int
) -> None:
    q, k, v = tensors(21, heads, kv_heads)
    found = attend(q, k, v, make_layout(DOCUMENTS))
    expected = naive(q, k, v, sees(DOCUMENTS))
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad((found * upstream).sum(), (q, k, v))
    for gradient, exact in zip(gradients, torch.autograd.grad((expected * upstream).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(gradient, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [6, 2])
def test_rows_of_one_document_are_plainly_causal(kv_heads: int) -> None:
    q, k, v = tensors(21, 6, kv_heads)
    layout = document_layout(torch.zeros(4, 21, dtype=torch.int32))
    assert layout.causal
    expected = naive(q, k, v, torch.ones(4, 21, 21, dtype=torch.bool).tril())
    torch.testing.assert_close(attend(q, k, v, layout).double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("new_tokens", [1, 4, 21])
def test_new_tokens_behind_a_cache_see_all_earlier_ones(new_tokens: int) -> None:
    q, k, v = tensors(21, 6, 2)
    whole = attend(q, k, v, CAUSAL)
    layout = cached_layout(new_tokens, 21 - new_tokens, torch.device("cpu"))
    torch.testing.assert_close(attend(q[:, -new_tokens:], k, v, layout), whole[:, -new_tokens:])


def test_in_bfloat16_attention_is_near_its_definition() -> None:
    q, k, v = tensors(21, 6, 2, torch.bfloat16)
    found = attend(q, k, v, document_layout(DOCUMENTS))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), naive(q, k, v, sees(DOCUMENTS)), rtol=2e-2, atol=2e-2)


def test_the_mask_for_accelerators_says_the_same_as_the_lengths_for_a_cpu() -> None:
    lengths = document_layout(DOCUMENTS).lengths
    assert lengths == (5, 1, 11, 4, 21, 20, 1, 3, 3, 15)
    assert torch.equal(document_mask(DOCUMENTS)[:, 0], sees(DOCUMENTS))
