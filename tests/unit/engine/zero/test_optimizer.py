"""Which parameters decay, and what AdamW does without a rate."""

from __future__ import annotations

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_table
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.engine.zero.optimizer import OptimizerOptions, build_optimizer, decays

SHAPE = DecoderShape(
    vocabulary_size=64,
    hidden_size=16,
    layers=2,
    heads=2,
    kv_heads=1,
    head_size=8,
    intermediate_size=64,
    max_position_embeddings=16,
)


def test_exactly_the_matrices_inside_the_layers_decay() -> None:
    decaying = {name for name in parameter_table(SHAPE) if decays(name, OptimizerOptions())}
    assert decaying == {name for name, size in parameter_table(SHAPE).items() if len(size) == 2 and "layers." in name}


def test_embeddings_decay_when_asked() -> None:
    options = OptimizerOptions(decay_embeddings=True)
    assert decays("embed_tokens.weight", options)
    assert decays("lm_head.weight", options)


def test_every_parameter_is_in_one_group_even_when_partitioned_to_one_dimension() -> None:
    flat = [(name, torch.nn.Parameter(torch.zeros(0))) for name in parameter_table(SHAPE)]
    groups = build_optimizer(flat, OptimizerOptions()).param_groups
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for _, parameter in flat)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]


def test_an_update_without_a_rate_changes_nothing() -> None:
    decoder = Decoder(SHAPE)
    before = {name: parameter.detach().clone() for name, parameter in decoder.named_parameters()}
    optimizer = build_optimizer(decoder.named_parameters(), OptimizerOptions())
    for parameter in decoder.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in decoder.named_parameters())


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": 0.0}, {"weight_decay": -1.0}, {"beta2": 1.0}, {"max_grad_norm": -0.5}]
)
def test_an_impossible_option_is_refused_by_its_key(wrong: dict[str, float]) -> None:
    [key] = wrong
    with pytest.raises(ConfigError, match=f"optimizer.{key}"):
        OptimizerOptions(**wrong)  # type: ignore[arg-type]
