from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from megadec.common.config import from_yaml, to_dict
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.engine.run import ModelOptions, Run, TrainOptions, check_same_run

PROJECT = Path(__file__).resolve().parents[3]
HERE = Path("runs/x/checkpoints/step_00000010")


def changed(**values: Any) -> dict[str, Any]:
    run = to_dict(Run(name="x", tokenizer="t"))
    for name, value in values.items():
        section, _, key = name.partition("__")
        if key:
            run[section][key] = value
        else:
            run[section] = value
    return run


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


@pytest.mark.parametrize(
    "free",
    [
        {"checkpoint__every_steps": 7},
        {"evaluate__sets": {"more": "shards/more"}},
        {"train__stop_at_step": 3},
        {"train__micro_sequences": 1},
        {"output_folder": "elsewhere"},
        {"metrics__peak_flops": 1e12},
    ],
)
def test_what_does_not_change_the_course_may_differ_when_a_run_goes_on(free: dict[str, Any]) -> None:
    check_same_run(HERE, changed(), changed(**free), named=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train__steps", 5),
        ("train__precision", "fp32"),
        ("train__sequences_per_step", 8),
        ("optimizer__learning_rate", 0.5),
        ("data__row_tokens", 8),
        ("data__train", {"shards/other": 1.0}),
        ("model__layers", 9),
        ("seed", 1),
    ],
)
def test_what_changes_the_course_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace("__", ".")):
        check_same_run(HERE, changed(), changed(**{key: value}), named=False)


def test_a_checkpoint_named_on_purpose_may_begin_another_course_of_the_same_model() -> None:
    now = changed(train__steps=5, optimizer__learning_rate=0.5, schedule__warmup_steps=0, name="y")
    check_same_run(HERE, changed(), now, named=True)
    with pytest.raises(ConfigError, match=r"model\.layers"):
        check_same_run(HERE, changed(), changed(model__layers=9), named=True)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        Run(name=name, tokenizer="t")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"micro_sequences": 0}, {"stop_at_step": 0}])
def test_counts_below_one_are_refused_by_their_key(wrong: dict[str, int]) -> None:
    [key] = wrong
    with pytest.raises(ConfigError, match=f"train.{key}=0"):
        TrainOptions(**wrong)  # type: ignore[arg-type]
