"""The DeepSpeed file and the run: what is derived, what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import ConfigError
from megadec.decoder.kernels import precision
from megadec.engine.train_options import TrainOptions, resolve_precision
from megadec.engine.zero.settings import DeepSpeedSettings, merge_settings, read_settings
from tests.support import PROJECT

TRAIN = TrainOptions(global_batch_size=24, micro_batch_size=4, precision="bf16")
SPLIT = dataclasses.replace(TRAIN, sequence_parallel_size=2)


def merge(file: Path, train: TrainOptions = TRAIN, ranks: int = 2) -> DeepSpeedSettings:
    return merge_settings(file, train, 1.0, ranks)


def write(folder: Path, **values: Any) -> Path:
    path = folder / "zero.json"
    path.write_text(json.dumps(values))
    return path


def test_each_shipped_file_holds_the_stage_of_its_name() -> None:
    for file in (PROJECT / "ds_configs").glob("zero*.json"):
        assert read_settings(file)["zero_optimization"]["stage"] == int(file.stem.removeprefix("zero")[0])


@pytest.mark.parametrize(("has", "auto"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_the_hardware_has_it_and_what_was_asked_for_stays(
    monkeypatch: pytest.MonkeyPatch, has: bool, auto: str
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: has)
    assert [resolve_precision(choice) for choice in ("auto", "bf16", "fp32")] == [auto, "bf16", "fp32"]  # type: ignore[arg-type]


def test_the_three_batch_sizes_are_derived_from_the_run(tmp_path: Path) -> None:
    values = merge(write(tmp_path, zero_optimization={"stage": 2})).values
    sizes = {"train_batch_size": 24, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}
    assert values == values | sizes | {"gradient_clipping": 1.0, "bf16": {"enabled": True}}


def test_ranks_that_share_sequences_are_told_to_deepspeed_as_if_each_had_its_own(tmp_path: Path) -> None:
    file = write(tmp_path, zero_optimization={"stage": 3}, sequence_parallel_size=2, data_parallel_size=2)
    settings = merge(file, SPLIT, 4)
    assert settings.sequence_parallel_size == 2
    assert settings.values["gradient_accumulation_steps"] == 3, "as with two ranks that share nothing"
    assert settings.values["train_batch_size"] == 48
    assert not settings.values.keys() & {"sequence_parallel_size", "data_parallel_size"}


@pytest.mark.parametrize(
    ("changes", "in_file", "words"),
    [
        ({"sequence_parallel_size": 3}, {}, r"train\.sequence_parallel_size=3 does not divide the 4 rank"),
        ({"micro_batch_size": 5}, {}, r"=24 is not a multiple of 5 .* x 2 \(ranks / train\.sequence_parallel_size\)"),
        ({}, {"sequence_parallel_size": 4}, r"sequence_parallel_size=4, but the run says 2 \(train\.sequence_parallel"),
        ({}, {"data_parallel_size": 4}, "data_parallel_size=4, but the run says 2"),
    ],
)
def test_groups_of_ranks_that_do_not_fit_are_refused(
    tmp_path: Path, changes: dict[str, int], in_file: dict[str, int], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        merge(write(tmp_path, **in_file), dataclasses.replace(SPLIT, **changes), 4)


def test_a_file_that_repeats_the_run_or_leaves_it_open_is_accepted(tmp_path: Path) -> None:
    stated = {"train_batch_size": 24, "gradient_clipping": "auto", "bf16": {"enabled": "auto"}}
    file = write(tmp_path, zero_optimization={"stage": 1}, **stated)
    assert merge(file).stage == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_batch_size", 32),
        ("train_micro_batch_size_per_gpu", 1),
        ("gradient_accumulation_steps", 1),
        ("gradient_clipping", 0.5),
        ("gradient_allreduce_op", "sum"),
        ("bf16", {"enabled": False}),
        ("bf16", True),
        ("fp16", {"enabled": True}),
        ("optimizer", {"type": "AdamW"}),
        ("scheduler", {"type": "WarmupLR"}),
        ("elasticity", {}),
        ("zero_optimization", {"stage": 4}),
        ("zero_optimization", {"stage": True}),
        ("zero_optimization", {"mics_shard_size": 2}),
        ("zero_optimization", 3),
        ("train_batch_sise", 24),
    ],
)
def test_a_file_that_contradicts_the_run_or_deepspeed_is_refused_by_file_and_key(
    tmp_path: Path, key: str, value: Any
) -> None:
    file = write(tmp_path, **{"zero_optimization": {"stage": 1}, key: value})
    with pytest.raises(ConfigError, match=key if key != "fp16" else "fp16 is not supported") as refused:
        merge(file)
    assert str(file) in str(refused.value)


def test_stage_0_in_bf16_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage 0 in bf16 \(train\.precision\)"):
        merge(write(tmp_path, zero_optimization={"stage": 0}))
