"""The chunked loss, and the classifier's, against cross_entropy in float64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear

from megadec.common.errors import ConfigError
from megadec.decoder import heads
from megadec.decoder.heads import ClassifierHead, LanguageLoss, LanguageModelHead


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 5 tokens for a vocabulary of 37, so that small batches have several and a shorter last one."""
    monkeypatch.setitem(heads.CHUNK_BYTES, "cpu", 5 * 37 * 4)
    monkeypatch.setitem(heads.CHUNK_TOKENS, "cpu", 1)


def batch(rows: int = 3, tokens: int = 11, hidden: int = 13) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    weights = torch.rand(rows, tokens) * (torch.rand(rows, tokens) > 0.3)
    return torch.randn(rows, tokens, hidden), torch.randint(0, 37, (rows, tokens)), weights


def head_of(hidden: int = 13, dtype: torch.dtype = torch.float32) -> LanguageModelHead:
    head = LanguageModelHead(hidden, 37)
    nn.init.normal_(head.weight)
    return head.to(dtype)


def reference(h: Tensor, head: LanguageModelHead, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients of h and weight in float64 through torch's cross_entropy."""
    h64, weight64 = h.detach().double().requires_grad_(), head.weight.detach().double().requires_grad_()
    nats = cross_entropy(linear(h64, weight64).flatten(0, 1), targets.flatten(), reduction="none")
    loss = (nats * weights.flatten().double()).sum()
    return (loss.detach(), *torch.autograd.grad(loss, (h64, weight64)))


@pytest.mark.parametrize(("rows", "tokens", "hidden"), [(3, 11, 13), (1, 1, 1), (1, 5, 8), (2, 5, 16)])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(rows: int, tokens: int, hidden: int) -> None:
    h, targets, weights = batch(rows, tokens, hidden)
    head = head_of(hidden)
    loss64, h_gradient64, weight_gradient64 = reference(h, head, targets, weights)
    h.requires_grad_()
    loss = head(h, targets, weights)
    (loss / 3).backward()
    assert loss.dtype == torch.float32
    assert loss.shape == ()
    torch.testing.assert_close(loss.double(), loss64, rtol=1e-6, atol=1e-6)
    assert h.grad is not None
    assert head.weight.grad is not None
    torch.testing.assert_close(h.grad.double(), h_gradient64 / 3, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(head.weight.grad.double(), weight_gradient64 / 3, rtol=1e-5, atol=1e-6)


def test_in_float64_the_gradients_are_exact() -> None:
    h, targets, weights = batch()
    head = head_of(dtype=torch.float64)
    loss64, h_gradient64, weight_gradient64 = reference(h, head, targets, weights)
    h = h.double().requires_grad_()
    loss = head(h, targets, weights)
    loss.backward()
    torch.testing.assert_close(loss, loss64, rtol=1e-13, atol=0)
    torch.testing.assert_close(h.grad, h_gradient64, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(head.weight.grad, weight_gradient64, rtol=1e-12, atol=1e-14)


def test_in_bfloat16_the_loss_is_float32_and_the_gradients_are_near_and_bfloat16() -> None:
    h, targets, weights = batch(4, 32, 64)
    head = head_of(64, torch.bfloat16)
    nn.init.normal_(head.weight, std=0.1)
    h = h.bfloat16()
    loss64, h_gradient64, weight_gradient64 = reference(h, head, targets, weights)
    h.requires_grad_()
    loss = head(h, targets, weights)
    loss.backward()
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), loss64, rtol=1e-3, atol=0)
    for found, expected in ((h.grad, h_gradient64), (head.weight.grad, weight_gradient64)):
        assert found is not None
        assert found.dtype == torch.bfloat16
        assert float((found.double() - expected).norm() / expected.norm()) < 1e-2


def test_rows_of_zero_weight_give_exactly_nothing_whatever_their_targets() -> None:
    h, targets, weights = batch()
    weights[1] = 0
    targets[1] = -100
    h.requires_grad_()
    head = head_of()
    loss = head(h, targets, weights)
    loss.backward()
    without = head(h[[0, 2]], targets[[0, 2]], weights[[0, 2]])
    torch.testing.assert_close(loss, without)
    assert h.grad is not None
    assert not h.grad[1].any()
    assert head(h, targets, torch.zeros_like(weights)).item() == 0.0


def test_without_weights_each_token_counts_one() -> None:
    h, targets, _ = batch()
    head = head_of()
    assert head(h, targets).item() == head(h, targets, torch.ones(3, 11)).item()


def test_without_gradients_the_loss_is_the_same_and_no_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    h, targets, weights = batch()
    head = head_of()
    expected = head(h, targets, weights).item()
    monkeypatch.setattr(heads, "_WeightGradient", None)
    with torch.no_grad():
        loss = head(h.requires_grad_(), targets, weights)
    assert loss.item() == expected
    assert not loss.requires_grad


def test_a_frozen_head_still_passes_the_gradient_on() -> None:
    h, targets, weights = batch()
    head = head_of()
    expected = reference(h, head, targets, weights)[1]
    head.weight.requires_grad_(False)
    h.requires_grad_()
    head(h, targets, weights).backward()
    assert head.weight.grad is None
    torch.testing.assert_close(h.grad, expected.float(), rtol=1e-5, atol=1e-6)


def test_the_weight_may_be_freed_between_forward_and_backward() -> None:
    h, targets, weights = batch()
    head = head_of()
    expected = reference(h, head, targets, weights)[1]
    h.requires_grad_()
    loss = head(h, targets, weights)
    head.weight.data.fill_(float("nan"))  # what ZeRO-3 does when it gives the memory back
    loss.backward()
    torch.testing.assert_close(h.grad, expected.float(), rtol=1e-5, atol=1e-6)


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
        head_of()(h.requires_grad_(), targets, weights).backward()
    assert largest < 8 * 64 * 37 / 2


@pytest.mark.parametrize("loss", [LanguageLoss(0.1), LanguageLoss(z_loss=0.01), LanguageLoss(0.3, 1e-3)])
def test_smoothing_and_z_loss_are_what_their_papers_say(loss: LanguageLoss) -> None:
    h, targets, weights = batch()
    head = LanguageModelHead(13, 37, loss=loss).double()
    nn.init.normal_(head.weight)
    h64 = h.double().requires_grad_()
    logits = linear(h64, head.weight).flatten(0, 1)
    nats = cross_entropy(logits, targets.flatten(), reduction="none", label_smoothing=loss.label_smoothing)
    nats = nats + loss.z_loss * logits.logsumexp(-1).square()
    expected = (nats * weights.flatten().double()).sum()
    gradients = torch.autograd.grad(expected, (h64, head.weight))
    found = head(h64, targets, weights)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)
    for ours, theirs in zip(torch.autograd.grad(found, (h64, head.weight)), gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


def test_evaluation_is_in_plain_nats_whatever_training_adds() -> None:
    h, targets, weights = batch()
    plain, other = head_of(), LanguageModelHead(13, 37, loss=LanguageLoss(0.1, 0.01))
    other.load_state_dict(plain.state_dict())
    assert other(h, targets, weights).item() != plain(h, targets, weights).item()
    assert other.eval()(h, targets, weights).item() == plain.eval()(h, targets, weights).item()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"label_smoothing": 1.0}, r"loss\.label_smoothing=1\.0 is not in \[0, 1\)"),
        ({"z_loss": -1.0}, r"loss\.z_loss=-1\.0 is not a number from 0"),
        ({"z_loss": float("nan")}, r"loss\.z_loss=nan"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LanguageLoss(**values)


def test_no_tokens_cost_nothing_and_have_zero_gradients() -> None:
    head = head_of()
    h = torch.randn(2, 0, 13, requires_grad=True)
    loss = head(h, torch.zeros(2, 0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0
    assert head.weight.grad is not None
    assert not head.weight.grad.any()


def test_a_second_backward_pass_through_the_same_loss_is_refused() -> None:
    h, targets, weights = batch()
    loss = head_of()(h.requires_grad_(), targets, weights)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def classifier_of(label_smoothing: float = 0.0, dtype: torch.dtype = torch.float32) -> ClassifierHead:
    head = ClassifierHead(13, 5, label_smoothing)
    nn.init.normal_(head.weight)
    return head.to(dtype)


def labelled() -> tuple[Tensor, Tensor, Tensor]:
    """Rows in which a few tokens have a label (of 5) with a weight; the others have targets that are no labels."""
    h, targets, _ = batch()
    counted = torch.rand(targets.shape) > 0.8
    weights = torch.where(counted, torch.rand(targets.shape) + 0.1, 0.0)
    return h, torch.where(counted, targets % 5, -7), weights


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_classifiers_loss_and_gradients_are_those_of_cross_entropy(label_smoothing: float) -> None:
    h, targets, weights = labelled()
    head = classifier_of(label_smoothing)
    h64, weight64 = h.double().requires_grad_(), head.weight.detach().double().requires_grad_()
    counted = weights > 0
    nats = cross_entropy(
        linear(h64, weight64)[counted], targets[counted], reduction="none", label_smoothing=label_smoothing
    )
    expected = (nats * weights[counted].double()).sum()
    expected.backward()
    h.requires_grad_()
    loss = head(h, targets, weights)
    loss.backward()
    assert (loss.dtype, loss.shape) == (torch.float32, ())
    for found, wanted in ((loss, expected), (h.grad, h64.grad), (head.weight.grad, weight64.grad)):
        assert found is not None
        assert wanted is not None
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_class_weights_on_the_labelled_tokens_are_torchs_weighted_cross_entropy() -> None:
    h, targets, weights = labelled()
    head, of_class = classifier_of(dtype=torch.float64), torch.tensor([0.5, 1.0, 3.0, 0.1, 2.0]).double()
    counted = weights > 0
    expected = cross_entropy(
        linear(h.double(), head.weight)[counted], targets[counted], weight=of_class, reduction="sum"
    )
    weights = torch.where(counted, of_class[targets.clamp(min=0)], 0.0)
    torch.testing.assert_close(head(h.double(), targets, weights), expected)


def test_label_smoothing_asks_for_less_than_certainty() -> None:
    """A classifier that is sure and right has no loss without smoothing and a large one with it."""
    head = classifier_of(label_smoothing=0.1)
    certain = 100 * head.weight[2] / head.weight[2].square().sum()
    h, target = certain.detach()[None, None], torch.tensor([[2]])
    smooth = head(h, target).item()
    head.label_smoothing = 0.0
    assert smooth > 1 > head(h, target).item()


def test_a_classifiers_batch_without_a_label_costs_nothing_and_has_zero_gradients() -> None:
    h, targets, weights = labelled()
    head = classifier_of()
    h.requires_grad_()
    loss = head(h, targets, torch.zeros_like(weights))
    loss.backward()
    assert loss.item() == 0.0
    assert h.grad is not None
    assert head.weight.grad is not None
    assert not h.grad.any()
    assert not head.weight.grad.any()


def test_in_bfloat16_the_classifiers_loss_is_computed_in_float32() -> None:
    h, targets, weights = labelled()
    loss = classifier_of(dtype=torch.bfloat16)(h.bfloat16(), targets, weights)
    assert loss.dtype == torch.float32
