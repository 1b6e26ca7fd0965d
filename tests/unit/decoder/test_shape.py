"""Shapes and presets: what is refused, and that every count written down is true."""

import re
from importlib import resources

import pytest

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_count
from megadec.decoder.shape import DecoderShape, preset_names

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
