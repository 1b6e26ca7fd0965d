"""Attention against its definition, written out in float64."""

import math
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.profiler import ProfilerActivity, profile

from megadec.decoder.attention import CAUSAL, AttentionMask, attend
from megadec.decoder.attention import packed_mask as mask_for
from megadec.decoder.document_attention import (
    Documents,
    attend_blocks,
    attend_documents,
    document_blocks,
    document_kernel,
    document_mask,
    locate_documents,
)

DOCUMENTS = torch.tensor(
    [
        [0] * 5 + [1] * 1 + [2] * 11 + [3] * 4,
        [0] * 21,
        [4] * 20 + [9] * 1,
        [0] * 3 + [1] * 3 + [0] * 15,  # the same number again after another is another document
    ]
)


def naive(q_BSHD: Tensor, k_BTKD: Tensor, v_BTKD: Tensor, sees_BST: Tensor) -> Tensor:
    """The definition in float64; query head h reads key-value head h // (H / K)."""
    copies = q_BSHD.shape[2] // k_BTKD.shape[2]
    k, v = (x.double().repeat_interleave(copies, dim=2) for x in (k_BTKD, v_BTKD))
    scores = torch.einsum("bshd,bthd->bhst", q_BSHD.double(), k) / math.sqrt(q_BSHD.shape[3])
    weights = scores.masked_fill(~sees_BST.unsqueeze(1), -math.inf).softmax(-1)
    return torch.einsum("bhst,bthd->bshd", weights, v).flatten(2)


def sees(documents_BS: Tensor) -> Tensor:
    batch, tokens = documents_BS.shape
    out = torch.zeros(batch, tokens, tokens, dtype=torch.bool)
    for b in range(batch):
        for s in range(tokens):
            t = s
            while t >= 0 and documents_BS[b, t] == documents_BS[b, s]:
                out[b, s, t] = True
                t -= 1
    return out


def packed_mask(documents_BS: Tensor) -> AttentionMask:
    """What this machine does."""
    return mask_for(documents_BS, torch.float32, 16)


def dense_mask(documents_BS: Tensor) -> AttentionMask:
    """What packed_mask gives where there is nothing better."""
    return AttentionMask(mask_B1ST=document_mask(documents_BS))


def tensors(tokens: int, heads: int, kv_heads: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(4, tokens, n, 16, dtype=dtype).requires_grad_() for n in (heads, kv_heads, kv_heads)]


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("make_mask", [packed_mask, dense_mask])
def test_grouped_query_attention_within_documents_is_its_definition(
    make_mask: Callable[[Tensor], AttentionMask], heads: int, kv_heads: int
) -> None:
    errors = all_errors(DOCUMENTS, make_mask(DOCUMENTS), tensors(21, heads, kv_heads))
    assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("kv_heads", [6, 2])
def test_sequences_of_one_document_are_plainly_causal(kv_heads: int) -> None:
    one = torch.zeros(4, 21, dtype=torch.int32)
    for mask in (packed_mask(one), CAUSAL):
        errors = all_errors(one, mask, tensors(21, 6, kv_heads))
        assert max(errors) < 1e-6, errors


@pytest.mark.parametrize("tokens", [48, 720])  # short documents, and some that are attended by blocks
def test_in_bfloat16_the_errors_are_those_of_rounding(tokens: int) -> None:
    """Of the result once; of the gradients, into which the rounded result and rounded probabilities go, some times."""
    # One document, and two of the same length, which go together.
    documents_BS = ((torch.arange(tokens) - tokens // 8) // (tokens * 7 // 16)).int().expand(4, tokens)
    errors = all_errors(documents_BS, packed_mask(documents_BS), tensors(tokens, 4, 2, torch.bfloat16))
    assert errors[0] < 2**-8, errors
    assert max(errors[1:]) < 2**-7, errors


def all_errors(documents_BS: Tensor, mask: AttentionMask, qkv: list[Tensor]) -> list[float]:
    """|x - exact| / |exact| of the result and of the gradients of q, k and v."""
    exact = [x.detach().double().requires_grad_() for x in qkv]
    expected, mixed = naive(*exact, document_mask(documents_BS)[:, 0]), attend(*qkv, mask)
    assert mixed.dtype == qkv[0].dtype
    upstream = torch.randn_like(mixed)
    found = (mixed, *torch.autograd.grad(mixed, qkv, upstream))
    wanted = (expected, *torch.autograd.grad(expected, exact, upstream.double()))
    pairs = ((one.detach().double(), truth.detach()) for one, truth in zip(found, wanted, strict=True))
    return [float((one - truth).norm() / truth.norm()) for one, truth in pairs]


def test_documents_are_found_where_their_numbers_change_and_end_with_their_rows() -> None:
    documents = locate_documents(DOCUMENTS)
    assert documents.starts.diff().tolist() == [5, 1, 11, 4, 21, 20, 1, 3, 3, 15]
    assert documents.starts.tolist()[0] == 0
    assert documents.longest == 21
    assert torch.equal(document_mask(DOCUMENTS)[:, 0], sees(DOCUMENTS))


def squared_lengths(q: Tensor, k: Tensor, v: Tensor, mask: AttentionMask) -> int:
    """Scores that torch's attention kernels are asked for, forward and backward, by the shapes that they are given."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as trace:
        attend(q, k, v, mask).sum().backward()
    total = 0
    for event in trace.key_averages(group_by_input_shape=True):
        if event.key.startswith("aten::_scaled_dot_product"):
            shapes = [size for size in event.input_shapes if len(size) == 4]
            rows, _, queries, _ = shapes[0]
            total += event.count * rows * queries * shapes[-1][2]
    return total


def test_the_cost_follows_the_sum_of_squared_document_lengths() -> None:
    q, k, v = tensors(21, 6, 2)
    squares = sum(length**2 for length in locate_documents(DOCUMENTS).starts.diff().tolist())
    assert squared_lengths(q, k, v, packed_mask(DOCUMENTS)) == 2 * squares
    assert squared_lengths(q, k, v, dense_mask(DOCUMENTS)) == 2 * 4 * 21**2


def test_flex_attention_s_blocks_say_the_same_as_the_mask() -> None:
    blocks = document_blocks(DOCUMENTS)
    q, k, v = (x.detach() for x in tensors(21, 6, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is slow where it is not compiled
        found = attend_blocks(q, k, v, blocks)
    torch.testing.assert_close(found.double(), naive(q, k, v, sees(DOCUMENTS)), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the check's own
def test_the_operation_keeps_autograds_rules() -> None:
    qkv = (x.detach().double().flatten(0, 1).requires_grad_() for x in tensors(21, 2, 1))
    arguments = (*qkv, locate_documents(DOCUMENTS).starts)
    torch.library.opcheck(torch.ops.megadec.attend_each.default, arguments)


def test_a_gpu_is_asked_for_sequences_of_several_lengths_in_words_that_this_torch_knows() -> None:
    with FakeTensorMode(), torch.no_grad():
        q, k, v = (torch.empty(2, 32, n, 16, device="cuda", dtype=torch.bfloat16) for n in (4, 2, 2))
        starts = torch.empty(5, device="cuda", dtype=torch.int32)
        mixed = attend_documents(q, k, v, Documents(starts, 32))
    assert (mixed.shape, mixed.dtype) == ((2, 32, 64), torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_on_a_gpu_packed_documents_are_attended_as_by_definition(dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    wanted_kernel = {torch.bfloat16: "varlen", torch.float32: "flex"}[dtype]
    assert document_kernel(device, dtype, 64) == wanted_kernel
    documents_BS = (torch.arange(700) > 200).int().expand(4, 700).to(device)
    torch.manual_seed(0)
    qkv = [torch.randn(4, 700, n, 64, device=device, dtype=dtype).requires_grad_() for n in (4, 2, 2)]
    errors = all_errors(documents_BS, mask_for(documents_BS, dtype, 64), qkv)
    assert max(errors) < (2e-2 if dtype == torch.bfloat16 else 1e-3), errors
