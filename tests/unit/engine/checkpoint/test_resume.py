"""When a run may go on from a checkpoint and when it is another run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError
from megadec.engine.checkpoint.resume import check_fits, check_same_run, chosen_by_rank_0
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.runs.pretrain import Run

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


@pytest.mark.parametrize(
    "free",
    [
        {"checkpoint__interval_steps": 7},
        {"evaluate__sets": {"more": "shards/more"}},
        {"train__stop_at_step": 3},
        {"train__micro_batch_size": 1},
        {"output_folder": "elsewhere"},
        {"metrics__peak_flops": 1e12},
        {"model__execution": {"compile": "blocks"}},
        {"model__execution": {"recompute": {"mode": "full"}}},
    ],
)
def test_what_does_not_change_the_course_may_differ_when_a_run_goes_on(free: dict[str, Any]) -> None:
    check_same_run(HERE, changed(), changed(**free), changed(), named=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train__steps", 5),
        ("train__precision", "fp32"),
        ("train__global_batch_size", 8),
        ("optimizer__learning_rate", 0.5),
        ("data__sequence_length", 8),
        ("data__train", {"shards/other": 1.0}),
        ("model__shape", {"layers": 9}),
        ("seed", 1),
    ],
)
def test_what_changes_the_course_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace("__", ".")):
        check_same_run(HERE, changed(), changed(**{key: value}), changed(), named=False)


def test_a_checkpoint_named_on_purpose_may_begin_another_course_of_the_same_model() -> None:
    now = changed(train__steps=5, optimizer__learning_rate=0.5, schedule__warmup_steps=0, name="y")
    check_same_run(HERE, changed(), now, changed(), named=True)
    with pytest.raises(ConfigError, match=r"model\.shape\.layers"):
        check_same_run(HERE, changed(), changed(model__shape={"layers": 9}), changed(), named=True)


def test_an_option_that_came_after_the_checkpoint_counts_there_as_its_default() -> None:
    old = changed()
    del old["model"]["dropout"]
    check_same_run(HERE, old, changed(), changed(), named=False)
    with pytest.raises(ConfigError, match=r"model\.dropout: 0\.0 there, 0\.1 here"):
        check_same_run(HERE, old, changed(model__dropout=0.1), changed(), named=False)


def model(kind: str = "language_model", tokenizer: str = "abc", **shape: int) -> Job:
    """A job as far as a checkpoint is compared with it."""
    task = SimpleNamespace(kind=kind, shape=SimpleNamespace(to_dict=lambda: {"layers": 2, **shape}))
    return cast(Job, SimpleNamespace(task=task, tokenizer=SimpleNamespace(sha256=tokenizer, path="tokenizer.model")))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (model(layers=3), "another model"),
        (model(kind="classification"), "another model: language_model"),
        (model(tokenizer="def"), "another tokenizer than tokenizer.model"),
    ],
)
def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(job: Job, words: str) -> None:
    manifest = {"task": {"kind": "language_model"}, "shape": {"layers": 2}, "tokenizer": {"sha256": "abc"}}
    check_fits(HERE, manifest, model())
    with pytest.raises(CheckpointError, match=words):
        check_fits(HERE, manifest, job)


def test_what_rank_0_finds_wrong_is_raised() -> None:
    def refuse() -> None:
        raise CheckpointError("damaged")

    ranks = Ranks(0, 1, torch.device("cpu"))
    assert chosen_by_rank_0(ranks, lambda: (HERE, {"step": 10})) == (HERE, {"step": 10})
    with pytest.raises(CheckpointError, match="damaged"):
        chosen_by_rank_0(ranks, refuse)
