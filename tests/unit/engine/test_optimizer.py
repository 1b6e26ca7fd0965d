"""Which parameters decay, and that AdamW has no rate until a step gives it one."""

import torch

from megadec.decoder.flops import parameter_table
from megadec.engine.optimizer import OptimizerOptions, build_optimizer, decays
from tests.support.decoders import tiny_shape

SHAPE = tiny_shape()


def test_exactly_the_matrices_inside_the_layers_decay_and_embeddings_when_asked() -> None:
    for shape in (SHAPE, tiny_shape(qk_norm=False, attention_bias="qkvo")):
        table = parameter_table(shape)
        decaying = {name for name in table if decays(name, OptimizerOptions())}
        assert decaying == {name for name, size in table.items() if len(size) == 2 and "layers." in name}
    for name in ("embed_tokens.weight", "lm_head.weight"):
        assert decays(name, OptimizerOptions(decay_embeddings=True))


def test_every_parameter_is_in_one_group_without_a_rate_even_when_partitioned_to_one_dimension() -> None:
    flat = [(name, torch.nn.Parameter(torch.zeros(0))) for name in parameter_table(SHAPE)]
    groups = build_optimizer(flat, OptimizerOptions()).param_groups
    members = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(members) == sorted(id(parameter) for _, parameter in flat)
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [(0.1, 0.0), (0.0, 0.0)]
