"""Shapes and presets: what is refused, and that every count written down is true."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.decoder.flops import parameter_count, parameter_table
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape, preset_names

NAMED = {"1m": 1e6, "5m": 5e6, "10m": 10e6, "30m": 30e6, "124m": 124e6, "350m": 350e6, "1b": 1e9, "3b": 3e9, "7b": 7e9}


def test_presets_are_listed_from_small_to_large() -> None:
    assert preset_names() == list(NAMED)


@pytest.mark.parametrize("name", NAMED)
def test_a_preset_has_about_as_many_parameters_as_its_name_says(name: str) -> None:
    assert parameter_count(DecoderShape.from_preset(name)) == pytest.approx(NAMED[name], rel=0.06)


@pytest.mark.parametrize("name", NAMED)
def test_the_counts_in_a_presets_comment_are_true(name: str) -> None:
    text = (resources.files("megadec.decoder") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    comments = " ".join(line for line in text.splitlines() if line.startswith("#")).replace("32,000", "")
    counts = [int(figure.replace(",", "")) for figure in re.findall(r"\d{1,3}(?:,\d{3})+", comments)]
    shape = DecoderShape.from_preset(name)
    matrix = shape.vocabulary_size * shape.hidden_size
    total = parameter_count(shape)
    assert counts == [total, matrix, total - matrix * (1 if shape.tied_embeddings else 2)]
    assert ("dominates" in comments) == (matrix > total / 2)


@pytest.mark.parametrize("classes", [None, 7])
@pytest.mark.parametrize("name", NAMED)
def test_the_table_of_parameters_is_that_of_the_module(name: str, classes: int | None) -> None:
    shape = DecoderShape.from_preset(name)
    with torch.device("meta"):
        decoder = Decoder(shape, classes=classes)
    found = {key: tuple(parameter.shape) for key, parameter in decoder.named_parameters()}
    assert list(found.items()) == list(parameter_table(shape, classes).items())


def test_a_presets_field_can_be_overridden() -> None:
    shape = DecoderShape.from_preset("10m", vocabulary_size=600, qk_norm=False)
    assert (shape.vocabulary_size, shape.qk_norm, shape.layers) == (600, False, DecoderShape.from_preset("10m").layers)


def test_a_shape_survives_being_written_and_read() -> None:
    shape = DecoderShape.from_preset("3b", rope_theta=5e5)
    assert DecoderShape.from_mapping(shape.to_dict()) == shape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 2}, "model.shape.heads=3 is not a multiple of model.shape.kv_heads=2"),
        (
            {"hidden_size": 200, "qk_norm": False},
            "model.shape.hidden_size=200 is not a multiple of model.shape.heads=3",
        ),
        ({"head_size": 63}, "model.shape.head_size=63"),
        ({"intermediate_size": 500}, "model.shape.intermediate_size=500 is not a multiple of 64"),
        ({"layers": 0}, "model.shape.layers=0"),
        ({"layers": 2.5}, "model.shape.layers=2.5 is not a whole number"),
        ({"layers": True}, "model.shape.layers=True"),
        ({"norm_eps": "1e-6"}, "model.shape.norm_eps='1e-6'"),
        ({"qk_norm": "no"}, "model.shape.qk_norm='no' is not true or false"),
        ({"hiden_size": 64}, "did you mean 'hidden_size'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        DecoderShape.from_preset("10m", **change)


def test_an_unknown_preset_names_the_nearest_and_the_others() -> None:
    with pytest.raises(ConfigError, match=r"'124M'.*did you mean '124m'.*there are 1m, 5m"):
        DecoderShape.from_preset("124M")


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.shape\.layers is missing"):
        DecoderShape.from_mapping({"hidden_size": 64})
