"""Runs as they ship, and options that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from megadec.common.config import from_yaml
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.engine.run import ModelOptions, Run, TrainOptions

PROJECT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("file", sorted((PROJECT / "launch" / "runs").glob("*.yaml")), ids=lambda file: file.stem)
def test_each_shipped_run_is_read_and_has_the_name_of_its_file(file: Path) -> None:
    run = from_yaml(Run, file)
    assert run.name == file.stem
    assert set(run.evaluate.sets.values()).isdisjoint(run.data.train)


def test_a_preset_takes_changes_and_the_tokenizers_vocabulary(tiny_tokenizer_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    shape = ModelOptions(preset="10m", layers=3, tied_embeddings=False).shape(tokenizer)
    assert (shape.layers, shape.tied_embeddings, shape.vocabulary_size) == (3, False, tokenizer.vocabulary_size)
    assert ModelOptions(preset="10m", vocabulary_size=1024).shape(tokenizer).vocabulary_size == 1024


def test_a_shape_without_preset_names_what_is_missing(tiny_tokenizer_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.layers is missing"):
        ModelOptions(hidden_size=64).shape(Tokenizer.load(tiny_tokenizer_path))


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        Run(name=name, tokenizer="t")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"micro_sequences": 0}, {"stop_at_step": 0}])
def test_counts_below_one_are_refused_by_their_key(wrong: dict[str, int]) -> None:
    [key] = wrong
    with pytest.raises(ConfigError, match=f"train.{key}=0"):
        TrainOptions(**wrong)  # type: ignore[arg-type]
