"""The chunked loss, and the classifier's, against cross_entropy in float64: values and gradients."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from megadec.common.errors import ConfigError
from megadec.decoder import chunked_loss
from megadec.decoder.heads import ClassifierHead, LanguageModelHead
from megadec.decoder.layers import Embedding
from megadec.decoder.loss_options import PLAIN_LOSS, LanguageLoss


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 5 tokens for a vocabulary of 37, so that small batches have several and a shorter last one."""
    monkeypatch.setitem(chunked_loss.CHUNK_BYTES, "cpu", 5 * 37 * 4)
    monkeypatch.setitem(chunked_loss.CHUNK_TOKENS, "cpu", 1)


def batch(rows: int = 3, tokens: int = 11, hidden: int = 13) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weights = torch.rand(rows, tokens) * (torch.rand(rows, tokens) > 0.3)
    return torch.randn(rows, tokens, hidden).requires_grad_(), torch.randint(0, 37, (rows, tokens)), weights


def head_of(hidden: int = 13, std: float = 1.0, loss: LanguageLoss = PLAIN_LOSS) -> LanguageModelHead:
    head = LanguageModelHead(Embedding(37, hidden), False, loss)
    nn.init.normal_(head.weight, std=std)
    return head


def reference(h: Tensor, weight: Tensor, targets: Tensor, weights: Tensor, loss: LanguageLoss) -> list[Tensor]:
    """Loss and gradients of h and weight in float64 through torch's cross_entropy."""
    h64, weight64 = (x.detach().double().requires_grad_() for x in (h, weight))
    logits = linear(h64, weight64).flatten(0, 1)
    nats = cross_entropy(logits, targets.flatten().clamp(min=0), reduction="none", label_smoothing=loss.label_smoothing)
    nats = nats + loss.z_loss * logits.logsumexp(-1).square()
    total = (nats * weights.flatten().double()).sum()
    return [total.detach(), *torch.autograd.grad(total, (h64, weight64))]


def results(head: nn.Module, h: Tensor, targets: Tensor, weights: Tensor) -> list[Tensor]:
    """Loss and gradients of h and weight, float32 or wider."""
    loss = head(h, targets, weights)
    assert (loss.dtype, loss.shape) == (torch.promote_types(h.dtype, torch.float32), ())
    return [loss.detach(), *torch.autograd.grad(loss, (h, head.weight))]


def assert_near(found: list[Tensor], wanted: list[Tensor], loss_rtol: float, rtol: float, atol: float) -> None:
    torch.testing.assert_close(found[0].double(), wanted[0], rtol=loss_rtol, atol=atol)
    for one, exact in zip(found[1:], wanted[1:], strict=True):
        torch.testing.assert_close(one.double(), exact, rtol=rtol, atol=atol)


LOSSES = [PLAIN_LOSS, LanguageLoss(0.1), LanguageLoss(z_loss=0.01), LanguageLoss(0.3, 1e-3)]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("rows", "tokens", "hidden"), [(3, 11, 13), (1, 1, 1), (1, 5, 8), (2, 5, 16)])
def test_loss_and_gradients_are_those_of_cross_entropy_with_smoothing_and_z_loss_as_in_their_papers(
    rows: int, tokens: int, hidden: int, loss: LanguageLoss
) -> None:
    h, targets, weights = batch(rows, tokens, hidden)
    head = head_of(hidden, loss=loss)
    expected = reference(h, head.weight, targets, weights, loss)
    assert_near(results(head, h, targets, weights), expected, loss_rtol=1e-6, rtol=1e-5, atol=1e-6)
    h64 = h.detach().double().requires_grad_()
    assert_near(results(head.double(), h64, targets, weights), expected, loss_rtol=1e-13, rtol=1e-11, atol=1e-13)


def test_in_bfloat16_the_loss_is_float32_and_the_gradients_are_near_and_bfloat16() -> None:
    h, targets, weights = batch(4, 32, 64)
    head = head_of(64, std=0.1).bfloat16()
    h = h.detach().bfloat16().requires_grad_()
    loss64, *gradients64 = reference(h, head.weight, targets, weights, PLAIN_LOSS)
    loss, *gradients = results(head, h, targets, weights)
    torch.testing.assert_close(loss.double(), loss64, rtol=1e-3, atol=0)
    for found, expected in zip(gradients, gradients64, strict=True):
        assert found.dtype == torch.bfloat16
        assert float((found.double() - expected).norm() / expected.norm()) < 1e-2


def test_sequences_of_zero_weight_give_exactly_nothing_whatever_their_targets() -> None:
    h, targets, weights = batch()
    weights[1] = 0
    targets[1] = -100
    head = head_of()
    loss = head(h, targets, weights)
    torch.testing.assert_close(loss, head(h[[0, 2]], targets[[0, 2]], weights[[0, 2]]))
    assert not torch.autograd.grad(loss, h)[0][1].any()


def test_without_weights_each_token_counts_one() -> None:
    h, targets, _ = batch()
    head = head_of()
    assert head(h, targets).item() == head(h, targets, torch.ones(3, 11)).item()


def test_without_gradients_the_loss_is_the_same_and_no_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    h, targets, weights = batch()
    head = head_of()
    expected = head(h, targets, weights).item()
    monkeypatch.setattr(chunked_loss, "_WeightGradient", None)
    with torch.no_grad():
        loss = head(h, targets, weights)
    assert loss.item() == expected
    assert not loss.requires_grad


@pytest.mark.parametrize("change", ["frozen", "freed"])
def test_a_weight_may_be_frozen_or_freed_between_forward_and_backward(change: str) -> None:
    h, targets, weights = batch()
    head = head_of().requires_grad_(change != "frozen")
    expected = reference(h, head.weight, targets, weights, PLAIN_LOSS)[1]
    loss = head(h, targets, weights) / 3
    if change == "freed":
        head.weight.data.fill_(float("nan"))  # what ZeRO-3 does when it gives the memory back
    loss.backward()
    assert (head.weight.grad is None) == (change == "frozen")
    torch.testing.assert_close(h.grad, expected.float() / 3, rtol=1e-5, atol=1e-6)


def test_no_tensor_as_large_as_all_logits_is_made() -> None:
    h, targets, weights = batch(8, 64)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    with Watch():
        head_of()(h, targets, weights).backward()
    assert largest < 8 * 64 * 37 / 2


def test_evaluation_is_in_plain_nats_whatever_training_adds() -> None:
    h, targets, weights = batch()
    plain, other = head_of(), head_of(loss=LanguageLoss(0.1, 0.01))
    other.load_state_dict(plain.state_dict())
    assert other(h, targets, weights).item() != plain(h, targets, weights).item()
    assert other.eval()(h, targets, weights).item() == plain.eval()(h, targets, weights).item()


def test_a_loss_that_makes_no_sense_is_refused() -> None:
    for name, value in (("label_smoothing", 1.0), ("z_loss", -1.0)):
        with pytest.raises(ConfigError, match=rf"loss\.{name}={value} is not at least 0 and below"):
            LanguageLoss(**{name: value})
    with pytest.raises(ConfigError, match=r"loss\.z_loss=nan is not a finite number"):
        LanguageLoss(z_loss=math.nan)


def test_a_second_backward_pass_through_the_same_loss_is_refused() -> None:
    h, targets, weights = batch()
    loss = head_of()(h, targets, weights)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def classifier_of(label_smoothing: float = 0.0) -> ClassifierHead:
    head = ClassifierHead(13, 5, label_smoothing)
    nn.init.normal_(head.weight)
    return head


def labeled() -> tuple[Tensor, Tensor, Tensor]:
    """Sequences in which a few tokens have a label (of 5) with a weight; the others have targets that are no labels."""
    h, targets, _ = batch()
    counted = torch.rand(targets.shape) > 0.8
    weights = torch.where(counted, torch.rand(targets.shape) + 0.1, 0.0)
    return h, torch.where(counted, targets % 5, -7), weights


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_classifiers_loss_and_gradients_are_those_of_cross_entropy(label_smoothing: float) -> None:
    h, targets, weights = labeled()
    head = classifier_of(label_smoothing)
    expected = reference(h, head.weight, targets, weights, LanguageLoss(label_smoothing))
    assert_near(results(head, h, targets, weights), expected, loss_rtol=1e-5, rtol=1e-5, atol=1e-6)
    results(head.bfloat16(), h.detach().bfloat16().requires_grad_(), targets, weights)  # the loss is float32


@pytest.mark.parametrize("make_head", [head_of, classifier_of])
@pytest.mark.parametrize("tokens", [0, 11])
def test_where_no_token_counts_the_loss_and_its_gradients_are_zero(make_head: Callable[[], Any], tokens: int) -> None:
    h, targets, weights = labeled()
    head = make_head()
    loss = head(h[:, :tokens], targets[:, :tokens], torch.zeros_like(weights[:, :tokens]))
    assert loss.item() == 0.0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (h, head.weight)))
