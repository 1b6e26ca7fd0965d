"""Dropout in the decoder: in training only, drawn from torch's generator, the same when a block is computed again."""

from typing import Any

import pytest
import torch
from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.decoder.execution import Execution, Recompute
from megadec.decoder.model import Decoder
from megadec.engine.runs.pretrain import ModelOptions
from tests.support.decoders import decoder_of, tiny_shape

TINY = tiny_shape()
IDS = torch.arange(48).view(2, 24)


def decoder(dropout: float, mode: Any = "none") -> Decoder:
    return decoder_of(TINY, execution=Execution(recompute=Recompute(mode)), dropout=dropout)


def loss_and_gradients(made: Decoder, seed: int) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(seed)
    loss = made(IDS, targets_BS=IDS)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in made.parameters() if parameter.grad is not None]


def test_nothing_is_left_out_in_evaluation() -> None:
    assert torch.equal(decoder(0.5).eval()(IDS), decoder(0.0)(IDS))


def test_training_leaves_out_what_the_seed_says() -> None:
    losses = [loss_and_gradients(decoder(0.3), seed)[0] for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.parametrize("mode", ["full", "every_nth", "selective"])
def test_a_block_that_is_computed_again_leaves_out_the_same(mode: str) -> None:
    loss, gradients = loss_and_gradients(decoder(0.3, mode), 1)
    expected_loss, expected = loss_and_gradients(decoder(0.3), 1)
    assert torch.equal(loss, expected_loss)
    assert all(map(torch.equal, gradients, expected))


def test_the_mean_over_many_draws_is_the_whole_embedding() -> None:
    made = decoder(0.25)
    with torch.no_grad():
        seen: list[Tensor] = []
        made.layers[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
        torch.manual_seed(0)
        for _ in range(100):
            made(IDS)
        kept = torch.stack(seen)
        assert abs(float((kept == 0).float().mean()) - 0.25) < 0.01
        whole = made.embed_tokens(IDS)
        assert float((kept.mean(0) - whole).norm() / whole.norm()) < 0.1


def test_a_share_that_is_none_is_refused() -> None:
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigError, match=r"model\.dropout=.* is not at least 0 and below 1"):
            ModelOptions(dropout=share)
