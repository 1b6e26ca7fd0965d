"""First weights: a pure function of seed and name, with the spread that the table says."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_table
from megadec.decoder.initialize import initial_std, initial_tensor, initialisation_table, initialize
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape

TINY = DecoderShape(
    vocabulary_size=300,
    hidden_size=64,
    layers=3,
    heads=4,
    kv_heads=2,
    head_size=16,
    intermediate_size=128,
    max_position_embeddings=64,
    tied_embeddings=False,
)


def test_initial_values_do_not_depend_on_the_order_of_construction() -> None:
    sizes = parameter_table(TINY)
    forwards = {name: initial_tensor(TINY, name, sizes[name], 7) for name in sizes}
    torch.manual_seed(123)
    torch.rand(5)
    for name in reversed(sizes):
        assert torch.equal(initial_tensor(TINY, name, sizes[name], 7), forwards[name])


def test_initialising_leaves_torchs_own_generator_alone() -> None:
    before = torch.get_rng_state()
    initialize(Decoder(TINY), 7)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_tensor_and_every_seed_starts_differently() -> None:
    q = initial_tensor(TINY, "layers.0.self_attn.q_proj.weight", (64, 64), 7)
    assert not torch.equal(q, initial_tensor(TINY, "layers.1.self_attn.q_proj.weight", (64, 64), 7))
    assert not torch.equal(q, initial_tensor(TINY, "layers.0.self_attn.q_proj.weight", (64, 64), 8))


@pytest.mark.parametrize("name", parameter_table(TINY))
def test_each_tensor_has_the_spread_of_its_rule(name: str) -> None:
    value = initial_tensor(TINY, name, parameter_table(TINY)[name], 0)
    if name.endswith("norm.weight"):
        assert bool((value == 1).all())
        return
    narrow = "o_proj" in name or "down_proj" in name
    std = 0.02 / math.sqrt(2 * TINY.layers) if narrow else 0.02
    assert initial_std(TINY, name) == pytest.approx(std)
    # Five standard errors of a sample's mean and standard deviation.
    assert abs(float(value.mean())) < 5 * std / math.sqrt(value.numel())
    assert float(value.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * value.numel()))


def test_a_parameter_is_filled_inside_its_gathering_context_whatever_size_it_shows() -> None:
    decoder, expected = Decoder(TINY), Decoder(TINY)
    initialize(expected, 5)
    whole = {parameter: parameter.data for parameter in decoder.parameters()}
    for parameter in whole:
        parameter.data = torch.empty(0)

    @contextlib.contextmanager
    def gather(parameter: nn.Parameter) -> Iterator[None]:
        parameter.data = whole[parameter]
        yield
        parameter.data = torch.empty(0)

    initialize(decoder, 5, gather)
    found: list[Tensor] = list(whole.values())
    assert all(torch.equal(a, b) for a, b in zip(found, expected.parameters(), strict=True))


def test_a_parameter_without_a_rule_is_refused() -> None:
    with pytest.raises(ConfigError, match="adapter"):
        initial_tensor(TINY, "layers.0.adapter.weight", (2, 2), 0)


def test_the_table_names_every_kind_once() -> None:
    lines = initialisation_table(TINY).splitlines()
    assert len(lines) == 1 + len(parameter_table(DecoderShape.from_mapping({**TINY.to_dict(), "layers": 1})))
    assert any("layers.N.mlp.down_proj.weight" in line and "0.00816" in line for line in lines)


def test_a_classifier_begins_with_the_values_of_its_decoder_and_a_narrow_score() -> None:
    classifier, decoder = Decoder(TINY, classes=5), Decoder(TINY)
    initialize(classifier, 7)
    initialize(decoder, 7)
    values = dict(decoder.named_parameters())
    for name, parameter in classifier.named_parameters():
        if name != "score.weight":
            assert torch.equal(parameter, values[name])
    assert float(classifier.score.weight.detach().std()) == pytest.approx(TINY.initializer_std, rel=0.2)
