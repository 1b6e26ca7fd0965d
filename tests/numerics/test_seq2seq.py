"""Encoder-decoders: padding is nothing, the future unseen, the whole source seen, and a cache changes no number."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from megadec.common.errors import InputError
from tests.support.seq2seq_models import SHAPES, VOCABULARY, model_of

LENGTHS = torch.tensor([6, 1, 9, 4])
every_model = pytest.mark.parametrize(("name", "values"), SHAPES)


def batch(tokens: int = 7) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randint(1, VOCABULARY, (4, tokens)), torch.randint(1, VOCABULARY, (4, int(LENGTHS.max())))


@every_model
@torch.no_grad()
def test_padding_of_sources_and_targets_never_changes_logits(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    logits = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = model(
            ids_BS[row : row + 1, : row + 3],
            source_ids_BT=source_BT[row : row + 1, :length],
            source_lengths_B=LENGTHS[row : row + 1],
        )
        torch.testing.assert_close(logits[row : row + 1, : row + 3], alone, rtol=1e-6, atol=1e-6)


@every_model
@torch.no_grad()
def test_a_target_sees_all_of_its_own_source_and_none_of_the_padding(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    logits = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
    for column in range(source_BT.shape[1]):
        changed_BT = source_BT.clone()
        changed_BT[:, column] = source_BT[:, column] % (VOCABULARY - 1) + 1
        other = model(ids_BS, source_ids_BT=changed_BT, source_lengths_B=LENGTHS)
        moved_B = (other - logits).abs().amax(dim=(1, 2)) > 1e-9
        assert torch.equal(moved_B, column < LENGTHS), column


@every_model
@torch.no_grad()
def test_a_token_never_sees_the_target_behind_it(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    logits = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
    for column in range(1, ids_BS.shape[1]):
        changed_BS = ids_BS.clone()
        changed_BS[:, column] = ids_BS[:, column] % (VOCABULARY - 1) + 1
        other = model(changed_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
        torch.testing.assert_close(other[:, :column], logits[:, :column], rtol=0, atol=1e-12)
        assert (other[:, column] - logits[:, column]).abs().max() > 1e-9


@every_model
@pytest.mark.parametrize("steps", [[1] * 7, [7], [3, 1, 1, 2]])
@torch.no_grad()
def test_logits_with_a_cache_are_those_of_the_full_pass(name: str, values: dict[str, Any], steps: list[int]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    cache = model.read(source_BT, LENGTHS)
    cached = torch.cat([model(part, cache=cache) for part in ids_BS.split(steps, dim=1)], dim=1)
    whole = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
    torch.testing.assert_close(cached, whole, rtol=1e-6, atol=1e-6)
    assert cache.length == 7
    last = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS, last_only=True)
    torch.testing.assert_close(last, whole[:, -1:])


@every_model
@torch.no_grad()
def test_chosen_rows_of_a_cache_go_on_as_their_own(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    rows = torch.tensor([2, 0, 2])
    cache = model.read(source_BT, LENGTHS)
    model(ids_BS[:, :4], cache=cache)
    cache.select(rows)
    found = model(ids_BS[rows, 4:], cache=cache)
    whole = model(ids_BS[rows], source_ids_BT=source_BT[rows], source_lengths_B=LENGTHS[rows])
    torch.testing.assert_close(found, whole[:, 4:], rtol=1e-6, atol=1e-6)


@every_model
def test_the_loss_is_the_weighted_cross_entropy_of_the_logits_and_so_are_its_gradients(
    name: str, values: dict[str, Any]
) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    targets_BS, weights_BS = ids_BS.roll(1, dims=1), torch.rand(4, 7, dtype=torch.float64).round()
    source = {"source_ids_BT": source_BT, "source_lengths_B": LENGTHS}
    loss = model(ids_BS, **source, targets_BS=targets_BS, weights_BS=weights_BS)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    logits = model(ids_BS, **source).flatten(0, 1)
    expected = (cross_entropy(logits, targets_BS.flatten(), reduction="none") * weights_BS.flatten()).sum()
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(gradients, torch.autograd.grad(expected, list(model.parameters())), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


@every_model
def test_a_step_of_rows_one_by_one_is_the_step_of_all_together(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    parameters = list(model.parameters())
    losses = [
        model(
            ids_BS[row : row + 1],
            source_ids_BT=source_BT[row : row + 1, :length],
            source_lengths_B=LENGTHS[row : row + 1],
            targets_BS=ids_BS[row : row + 1],
        )
        for row, length in enumerate(LENGTHS.tolist())
    ]
    together = model(ids_BS, source_ids_BT=source_BT, source_lengths_B=LENGTHS, targets_BS=ids_BS)
    torch.testing.assert_close(sum(losses), together)
    one_by_one = torch.autograd.grad(sum(losses), parameters)
    for found, wanted in zip(one_by_one, torch.autograd.grad(together, parameters), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


@every_model
def test_rows_that_do_not_fit_are_refused(name: str, values: dict[str, Any]) -> None:
    model = model_of(name, values)
    ids_BS, source_BT = batch()
    long = torch.ones(4, 25, dtype=torch.int64)
    with pytest.raises(InputError, match="a source of 25 tokens does not fit: the model's context is 24"):
        model(ids_BS, source_ids_BT=long, source_lengths_B=LENGTHS)
    with pytest.raises(InputError, match="a target of 25 tokens does not fit"):
        model(long, source_ids_BT=source_BT, source_lengths_B=LENGTHS)
    for lengths in ([6, 0, 9, 4], [6, 1, 10, 4]):
        with pytest.raises(InputError, match="not all from 1 to 9"):
            model(ids_BS, source_ids_BT=source_BT, source_lengths_B=torch.tensor(lengths))
    cache = model.read(source_BT, LENGTHS)
    model(long[:, :24], cache=cache)
    with pytest.raises(InputError, match=r"25 tokens do(es)? not fit"):
        model(long[:, :1], cache=cache)
