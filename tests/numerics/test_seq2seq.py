"""Encoder-decoders: padding is nothing, the future unseen, the whole source seen, and a cache changes no number."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.common.errors import InputError
from tests.support.seq2seq_models import SHAPES, VOCABULARY, model_of

LENGTHS = torch.tensor([6, 1, 9, 4])
IDS, SOURCE = torch.randint(1, VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(0)).split([7, 9], dim=1)


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Any:
    return model_of(*request.param)


def run(
    model: Any, ids_BS: Tensor = IDS, source_BT: Tensor = SOURCE, lengths_B: Tensor = LENGTHS, **more: Any
) -> Tensor:
    out: Tensor = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=lengths_B, **more)
    return out


@torch.no_grad()
def test_padding_of_sources_and_targets_never_changes_logits(model: Any) -> None:
    logits = run(model)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = run(model, IDS[row, None, : row + 3], SOURCE[row, None, :length], LENGTHS[row, None])
        torch.testing.assert_close(logits[row : row + 1, : row + 3], alone, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_target_sees_all_of_its_own_source_and_none_of_the_padding(model: Any) -> None:
    logits = run(model)
    for column in range(SOURCE.shape[1]):
        changed_BT = SOURCE.clone()
        changed_BT[:, column] = SOURCE[:, column] % (VOCABULARY - 1) + 1
        other = run(model, source_BT=changed_BT)
        moved_B = (other - logits).abs().amax(dim=(1, 2)) > 1e-9
        assert torch.equal(moved_B, column < LENGTHS), column


@torch.no_grad()
def test_a_token_never_sees_the_target_behind_it(model: Any) -> None:
    logits = run(model)
    for column in range(1, IDS.shape[1]):
        changed_BS = IDS.clone()
        changed_BS[:, column] = IDS[:, column] % (VOCABULARY - 1) + 1
        other = run(model, changed_BS)
        torch.testing.assert_close(other[:, :column], logits[:, :column], rtol=0, atol=1e-12)
        assert (other[:, column] - logits[:, column]).abs().max() > 1e-9


@pytest.mark.parametrize("steps", [[1] * 7, [7], [3, 1, 1, 2]])
@torch.no_grad()
def test_logits_with_a_cache_are_those_of_the_full_pass(model: Any, steps: list[int]) -> None:
    cache = model.read(SOURCE, LENGTHS)
    cached = torch.cat([model(part, cache=cache) for part in IDS.split(steps, dim=1)], dim=1)
    whole = run(model)
    torch.testing.assert_close(cached, whole, rtol=1e-6, atol=1e-6)
    assert cache.length == 7
    last = run(model, last_only=True)
    torch.testing.assert_close(last, whole[:, -1:])


@torch.no_grad()
def test_chosen_sequences_of_a_cache_go_on_as_their_own(model: Any) -> None:
    rows = torch.tensor([2, 0, 2])
    cache = model.read(SOURCE, LENGTHS)
    model(IDS[:, :4], cache=cache)
    cache.select(rows)
    found = model(IDS[rows, 4:], cache=cache)
    whole = run(model, IDS[rows], SOURCE[rows], LENGTHS[rows])
    torch.testing.assert_close(found, whole[:, 4:], rtol=1e-6, atol=1e-6)


def test_the_loss_is_the_weighted_cross_entropy_of_the_logits_and_so_are_its_gradients(model: Any) -> None:
    torch.manual_seed(1)
    targets_BS, weights_BS = IDS.roll(1, dims=1), torch.rand(4, 7, dtype=torch.float64).round()
    loss = run(model, targets_BS=targets_BS, weights_BS=weights_BS)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    logits = run(model).flatten(0, 1)
    expected = (cross_entropy(logits, targets_BS.flatten(), reduction="none") * weights_BS.flatten()).sum()
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


def test_a_step_of_pairs_one_by_one_is_the_step_of_all_together(model: Any) -> None:
    parameters = list(model.parameters())
    losses = [
        run(model, IDS[row, None], SOURCE[row, None, :length], LENGTHS[row, None], targets_BS=IDS[row, None])
        for row, length in enumerate(LENGTHS.tolist())
    ]
    together = run(model, targets_BS=IDS)
    torch.testing.assert_close(sum(losses), together)
    one_by_one = torch.autograd.grad(sum(losses), parameters)
    for found, wanted in zip(one_by_one, torch.autograd.grad(together, parameters), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


def test_sequences_that_do_not_fit_are_refused(model: Any) -> None:
    long = torch.ones(4, 25, dtype=torch.int64)
    with pytest.raises(InputError, match="a source of 25 tokens does not fit: the model's context is 24"):
        run(model, source_BT=long)
    with pytest.raises(InputError, match="a target of 25 tokens does not fit"):
        run(model, long)
    for lengths in ([6, 0, 9, 4], [6, 1, 10, 4]):
        with pytest.raises(InputError, match="not all from 1 to 9"):
            run(model, lengths_B=torch.tensor(lengths))
    cache = model.read(SOURCE, LENGTHS)
    model(long[:, :24], cache=cache)
    with pytest.raises(InputError, match="25 tokens does not fit"):
        model(long[:, :1], cache=cache)
