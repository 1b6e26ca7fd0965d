"""The fused cross-entropy against float64: in torch in this process, in Triton in its interpreter."""

from __future__ import annotations

import pytest
import torch

from megadec.decoder.kernels.choose import triton_is_installed
from megadec.decoder.kernels.cross_entropy import losses_in_place
from tests.support.cross_entropy_cases import CASES, DTYPES, drawn, errors, ours_of
from tests.support.kernel_cases import assert_no_worse, interpreted


@pytest.mark.parametrize(("size", "dtype", "loss"), CASES)
def test_in_torch_it_is_as_near_to_float64_as_torchs_own(
    size: tuple[int, int], dtype: str, loss: tuple[float, float]
) -> None:
    assert_no_worse(errors(size, DTYPES[dtype], loss, triton=False))


@pytest.mark.skipif(not triton_is_installed(), reason="triton is not installed")
def test_in_triton_it_is_as_near_to_float64_as_torchs_own() -> None:
    all_found = interpreted("tests.support.cross_entropy_cases")
    assert len(all_found) == len(CASES)
    for found in all_found:
        assert_no_worse(found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize(("size", "dtype", "loss"), [*CASES, ((64, 151936), "bfloat16", (0.1, 1e-4))])
def test_on_a_gpu_the_kernel_gives_what_torch_gives(
    size: tuple[int, int], dtype: str, loss: tuple[float, float]
) -> None:
    arguments = [x.cuda() for x in drawn(size, DTYPES[dtype])]
    found, expected = (ours_of(*arguments, loss, triton=triton) for triton in (True, False))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2 if dtype == "bfloat16" else 1e-4, atol=1e-6)


def test_a_token_is_computed_alike_whatever_tokens_are_beside_it() -> None:
    logits, targets, weights = drawn((40, 40001), torch.float32)
    nats, gradient = ours_of(logits, targets, weights, (0.1, 0.01), triton=False)
    for row in (0, 17, 39):
        one = slice(row, row + 1)
        alone_nats, alone_gradient = ours_of(logits[one], targets[one], weights[one], (0.1, 0.01), triton=False)
        assert torch.equal(alone_nats, nats[one])
        assert torch.equal(alone_gradient, gradient[one])


def test_tokens_without_weight_have_no_gradient() -> None:
    logits, targets, _ = drawn((6, 37), torch.bfloat16)
    _, gradient = ours_of(logits, targets, torch.zeros(6), (0.1, 0.01), triton=False)
    assert not gradient.any()


def test_a_logit_that_is_no_number_is_seen_in_the_nats() -> None:
    logits, targets, weights = drawn((5, 37), torch.float32)
    logits[2, 7] = float("nan")
    nats = losses_in_place(logits, targets, weights, label_smoothing=0.0, z_loss=0.0, gradient=False, triton=False)
    assert torch.isnan(nats).tolist() == [False, False, True, False, False]
