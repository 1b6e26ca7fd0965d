"""Shapes and presets: what is refused, and that every count written down is true."""

import json
import re
from importlib import resources

import pytest

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_count
from megadec.decoder.shape import DecoderShape, preset_names
from tests.support.decoders import LLAMA3, YARN, tiny_shape

NAMED = {"1m": 1e6, "5m": 5e6, "10m": 10e6, "30m": 30e6, "124m": 124e6, "350m": 350e6, "1b": 1e9, "3b": 3e9, "7b": 7e9}


def test_presets_are_listed_from_small_to_large() -> None:
    assert preset_names() == list(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_preset_has_about_as_many_parameters_as_its_name_says_and_exactly_those_of_its_comment(name: str) -> None:
    text = (resources.files("megadec.decoder") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    comments = " ".join(line for line in text.splitlines() if line.startswith("#")).replace("32,000", "")
    counts = [int(figure.replace(",", "")) for figure in re.findall(r"\d{1,3}(?:,\d{3})+", comments)]
    shape = DecoderShape.from_preset(name)
    matrix = shape.vocabulary_size * shape.hidden_size
    total = parameter_count(shape)
    assert total == pytest.approx(NAMED[name], rel=0.06)
    assert counts == [total, matrix, total - matrix * (1 if shape.tied_embeddings else 2)]
    assert ("dominates" in comments) == (matrix > total / 2)


def test_a_presets_field_can_be_overridden() -> None:
    shape = DecoderShape.from_preset("10m", vocabulary_size=600, qk_norm=False)
    assert (shape.vocabulary_size, shape.qk_norm, shape.layers) == (600, False, DecoderShape.from_preset("10m").layers)


def test_an_unknown_preset_and_an_unknown_or_missing_field_are_named_with_what_is_near() -> None:
    with pytest.raises(ConfigError, match=r"'124M' is none of 1m, 5m.*did you mean '124m'"):
        DecoderShape.from_preset("124M")
    with pytest.raises(ConfigError, match=r"did you mean 'hidden_size'"):
        DecoderShape.from_preset("10m", hiden_size=64)
    with pytest.raises(ConfigError, match=r"model\.shape\.layers is missing: give it, or name a preset"):
        DecoderShape.from_mapping({"hidden_size": 64})


@pytest.mark.parametrize("scaling", [None, {"rope_type": "linear", "factor": 2}, LLAMA3, {**YARN, "truncate": False}])
def test_a_shape_comes_back_from_its_plain_values(scaling: dict | None) -> None:
    shape = tiny_shape(rope_scaling=scaling, qk_norm=False, attention_bias="qkv")
    assert DecoderShape.from_mapping(json.loads(json.dumps(shape.to_dict()))) == shape
    assert hash(shape) == hash(tiny_shape(rope_scaling=scaling, qk_norm=False, attention_bias="qkv"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention_bias": "o"}, r"model\.shape\.attention_bias='o' is none of none, qkv, qkvo"),
        ({"attention_bias": "qkv"}, r"attention_bias=qkv with model\.shape\.qk_norm=true"),
        ({"rope_scaling": 4.0}, r"model\.shape\.rope_scaling=4\.0 is not keys"),
        ({"rope_scaling": {"factor": 2.0}}, r"model\.shape\.rope_scaling\.rope_type='None' is none of linear"),
        ({"rope_scaling": {**YARN, "faktor": 2}}, r"rope_scaling\.faktor is not a key .*did you mean 'factor'"),
        ({"rope_scaling": {**YARN, "factor": 0.5}}, r"rope_scaling\.factor=0\.5 is less than 1"),
        ({"rope_scaling": {**YARN, "beta_slow": 40.0}}, r"rope_scaling\.beta_fast=32\.0 is not more than beta_slow=40"),
        ({"rope_scaling": {**YARN, "truncate": 1}}, r"rope_scaling\.truncate=1 is not true or false"),
        ({"rope_scaling": {**LLAMA3, "high_freq_factor": 1.0}}, r"high_freq_factor=1\.0 is not more than low_freq"),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16.0}}, r"=16\.0 is not a whole number"),
        ({"rope_scaling": YARN, "rope_theta": 1.0}, r"model\.shape\.rope_theta=1\.0 is not more than 1"),
    ],
)
def test_biases_and_scaled_rope_that_cannot_be_are_refused_by_the_key(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny_shape(**changes)
