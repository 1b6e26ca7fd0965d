"""First weights: a pure function of seed and name, with the spread that the table says."""

import math

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_table
from megadec.decoder.initialize import initial_tensor
from tests.support.decoders import decoder_of, tiny_shape

TINY = tiny_shape(vocabulary_size=300, layers=3, tied_embeddings=False)
BIASED = tiny_shape(qk_norm=False, attention_bias="qkvo")


def test_every_tensor_starts_differently_and_torchs_own_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    one, other = (initial_tensor(TINY, f"layers.{i}.self_attn.q_proj.weight", (64, 64), 7) for i in range(2))
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", parameter_table(TINY))
def test_each_tensor_has_the_spread_of_its_rule(name: str) -> None:
    value = initial_tensor(TINY, name, parameter_table(TINY)[name], 0)
    if name.endswith("norm.weight"):
        assert bool((value == 1).all())
        return
    narrow = "o_proj" in name or "down_proj" in name
    std = 0.02 / math.sqrt(2 * TINY.layers) if narrow else 0.02
    # Five standard errors of a sample's mean and standard deviation.
    assert abs(float(value.mean())) < 5 * std / math.sqrt(value.numel())
    assert float(value.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * value.numel()))


def test_a_bias_starts_at_zero() -> None:
    biases = {name: size for name, size in parameter_table(BIASED).items() if name.endswith(".bias")}
    assert len(biases) == 4 * BIASED.layers
    assert not any(initial_tensor(BIASED, name, size, 0).any() for name, size in biases.items())


def test_a_parameter_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="adapter"):
        initial_tensor(TINY, "layers.0.adapter.weight", (2, 2), 0)


def test_a_classifier_begins_with_the_values_of_its_decoder_and_a_narrow_score() -> None:
    classifier = decoder_of(TINY, 7, classes=5)
    values = dict(decoder_of(TINY, 7).named_parameters())
    for name, parameter in classifier.named_parameters():
        if name != "score.weight":
            assert torch.equal(parameter, values[name])
    assert float(classifier.score.weight.detach().std()) == pytest.approx(TINY.initializer_std, rel=0.2)
