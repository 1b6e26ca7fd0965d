"""Fused operations against float64: the torch ones in this process, the Triton ones in Triton's interpreter."""

from typing import Any
from unittest import mock

import pytest
import torch

from megadec.decoder.kernels import norm
from megadec.decoder.kernels.choose import triton_is_installed
from megadec.decoder.kernels.cross_entropy import losses
from tests.support.kernel_cases import (
    CASES,
    DTYPES,
    EPS,
    LOSS_CASES,
    assert_no_worse,
    drawn,
    errors,
    five_losses,
    interpreted,
    loss_errors,
    ours_of,
)

EACH = [(name, size, dtype) for name, size in CASES for dtype in DTYPES]

needs_triton = pytest.mark.skipif(not triton_is_installed(), reason="triton is not installed")


@pytest.fixture(scope="module")
def by_triton() -> Any:
    """What the Triton kernels give; one process for all."""
    return interpreted()


@pytest.mark.parametrize(("name", "size", "dtype"), EACH)
def test_torch_written_by_hand_is_as_near_to_float64_as_the_formula(
    name: str, size: tuple[int, ...], dtype: str
) -> None:
    assert_no_worse(errors(name, size, DTYPES[dtype], "torch"))


@needs_triton
@pytest.mark.parametrize(("name", "size", "dtype"), EACH)
def test_a_triton_kernel_is_as_near_to_float64_as_the_formula(
    by_triton: Any, name: str, size: tuple[int, ...], dtype: str
) -> None:
    assert_no_worse(by_triton["errors"][f"{name} {size} {dtype}"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("name", "size", "dtype"), [case for case in EACH if case[2] == "bfloat16"])
def test_a_triton_kernel_on_a_gpu_is_as_near_to_float64_as_the_formula(
    name: str, size: tuple[int, ...], dtype: str
) -> None:
    with torch.device("cuda"):
        assert_no_worse(errors(name, size, DTYPES[dtype], "triton"))


@needs_triton
def test_five_steps_give_the_same_losses_with_triton_with_torch_and_with_the_formulas(by_triton: Any) -> None:
    by_torch = five_losses("torch")
    with mock.patch("torch.compiler.is_compiling", return_value=True):
        by_formula = five_losses("torch")
    assert by_torch[-1] < by_torch[0] - 0.1
    assert by_torch == pytest.approx(by_formula, rel=2e-5)
    assert by_triton["losses"] == pytest.approx(by_formula, rel=2e-5)


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_forward_a_norm_rounds_as_hugging_face_does_bit_for_bit(dtype: torch.dtype) -> None:
    x, weight = torch.randn(700, 515).to(dtype), (1 + 0.1 * torch.randn(515)).to(dtype)
    assert torch.equal(norm.rms_norm(x, weight, EPS), norm.formula(x, weight, EPS))


@pytest.mark.parametrize("used", [0, 1])
def test_a_result_that_is_not_used_has_no_part_in_the_gradient(used: int) -> None:
    x, added, weight = (torch.randn(n, requires_grad=True) for n in ((4, 8), (4, 8), 8))
    ours = norm.stream_norm(x, added, weight, EPS)[used]
    theirs = (x + added, norm.formula(x + added, weight, EPS))[used]
    leaves = (x, added, weight)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), leaves, allow_unused=True) for out in (ours, theirs)),
                    strict=True):  # fmt: skip
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-5)


def test_a_frozen_weight_gets_no_gradient_and_changes_none() -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(8)
    (gradient,) = torch.autograd.grad(norm.rms_norm(x, weight, EPS).square().sum(), (x,))
    (exact,) = torch.autograd.grad(norm.formula(x, weight, EPS).square().sum(), (x,))
    torch.testing.assert_close(gradient, exact)


@pytest.mark.parametrize(("size", "dtype", "loss"), LOSS_CASES)
def test_in_torch_a_cross_entropy_is_as_near_to_float64_as_torchs_own(
    size: tuple[int, int], dtype: str, loss: tuple[float, float]
) -> None:
    assert_no_worse(loss_errors(size, DTYPES[dtype], loss, triton=False))


@needs_triton
def test_in_triton_a_cross_entropy_is_as_near_to_float64_as_torchs_own(by_triton: Any) -> None:
    assert len(by_triton["cross_entropy"]) == len(LOSS_CASES)
    for found in by_triton["cross_entropy"]:
        assert_no_worse(found)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("size", "dtype", "loss"), [*LOSS_CASES, ((64, 151936), "bfloat16", (0.1, 1e-4))])
def test_on_a_gpu_the_kernel_of_the_cross_entropy_gives_what_torch_gives(
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


def test_a_logit_that_is_no_number_is_seen_in_the_nats() -> None:
    logits, targets, weights = drawn((5, 37), torch.float32)
    logits[2, 7] = float("nan")
    nats = losses(logits, targets, weights, label_smoothing=0.0, z_loss=0.0, gradient=False)
    assert torch.isnan(nats).tolist() == [False, False, True, False, False]
