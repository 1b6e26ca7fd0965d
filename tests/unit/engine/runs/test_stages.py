"""Stages of a run: what each says, what the rate is, and which ones cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from megadec.common.config import from_dict, to_dict
from megadec.common.errors import ConfigError, MegadecError
from megadec.engine.checkpoint.new_stage import with_new_stage
from megadec.engine.runs.common import START, Stage
from megadec.engine.runs.pretrain import PretrainRun
from megadec.engine.runs.stages import changes_of
from megadec.pretrain.command import pretrain
from tests.support import PROJECT
from tests.support.decoders import TINY

SMALL = {key: value for key, value in TINY.items() if key != "vocabulary_size"}


@pytest.fixture
def values(tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path) -> dict[str, Any]:
    """A run as its file says it."""
    return {
        "name": "x",
        "tokenizer": str(tiny_tokenizer_path),
        "output_folder": str(tmp_path),
        "model": {"shape": SMALL, "dropout": 0.1},
        "data": {"train": {str(tiny_shards): 1.0}, "sequence_length": 32},
        "train": {"steps": 100, "global_batch_size": 8, "micro_batch_size": 2, "precision": "fp32"},
        "schedule": {"warmup_steps": 10},
        "metrics": {"tensorboard": False},
    }


def saved(values: dict[str, Any], step: int, name: str = "x") -> Path:
    """A checkpoint of the run, as far as a new stage looks at it."""
    run = from_dict(PretrainRun, {**values, "name": name})
    path = run.checkpoints / f"step_{step:08d}"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"step": step, "run": to_dict(run)}))
    return path


def rates(run: PretrainRun) -> list[float]:
    stages = (Stage(START, 1, run), *changes_of(run))
    return [[one for one in stages if one.first_step <= step][-1].learning_rate(step) for step in range(1, 101)]


def test_a_stage_keeps_what_it_does_not_change_and_hands_it_on(values: dict[str, Any]) -> None:
    good = {"shards/good": 2.0}
    anneal = {"name": "anneal", "first_step": 20, "data": {"train": good}, "model": {"dropout": 0.0}}
    rope = {"rope_theta": 1e7, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    long = {"name": "long", "first_step": 40, "data": {"sequence_length": 64}, "model": {"shape": rope}}
    first, second = changes_of(from_dict(PretrainRun, {**values, "stages": [anneal, long]}))
    assert isinstance(first.run, PretrainRun)
    assert isinstance(second.run, PretrainRun)
    assert first.run.data.train == second.run.data.train == good
    assert (first.run.data.sequence_length, second.run.data.sequence_length) == (32, 64)
    assert (first.run.model.dropout, second.run.model.dropout) == (0.0, 0.0)
    assert second.run.model.shape == {**SMALL, **rope}
    assert second.run.train == first.run.train


def test_the_rate_goes_on_over_the_run_unless_a_stage_has_a_schedule_of_its_own(values: dict[str, Any]) -> None:
    def rates_with(**sections: Any) -> list[float]:
        stage = {"name": "other", "first_step": 61, **sections}
        return rates(from_dict(PretrainRun, {**values, "stages": [stage]}))

    plain = rates(from_dict(PretrainRun, values))
    assert rates_with(train={"global_batch_size": 16}) == plain
    halved = rates_with(optimizer={"learning_rate": 3e-4})
    assert halved == pytest.approx([*plain[:60], *(rate / 2 for rate in plain[60:])])
    down = {"kind": "warmup_stable_decay", "warmup_steps": 4, "decay_fraction": 0.5, "final_fraction": 0.0}
    anew = rates_with(schedule=down)
    assert anew[:60] == plain[:60]
    assert anew[60:64] == pytest.approx([1.5e-4, 3e-4, 4.5e-4, 6e-4])
    assert anew[64:80] == [6e-4] * 16
    assert anew[-1] == 0.0
    # The end that the schedule runs to is the stage's own.
    assert rates_with(schedule=down, train={"steps": 120})[79:90] == [6e-4] * 11


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([{"model": {"shape": {"layers": 3}}}], "stages: a: model.shape.layers cannot change in the middle of a run"),
        (
            [{"data": {"sequence_lenght": 64}}],
            "data.sequence_lenght cannot change .*did you mean 'data.sequence_length'",
        ),
        ([{"optimizer": {"decay_embeddings": True}}], "optimizer.decay_embeddings cannot change"),
        ([{"seed": 3}], r"unknown key 'stages\[0\].seed'"),
        ([{"name": "start"}], "name='start' is not free"),
        ([{"first_step": 1}], "stages: a: first_step=1 is not at least 2"),
        ([{}, {"name": "b"}], "b begins at step 20 and a, which stands before it, at step 20"),
        ([{}, {"first_step": 30}], "stages: a stands twice"),
        ([{"first_step": 101}], r"a begins at step 101, behind the last one \(train.steps=100\)"),
        ([{"train": {"global_batch_size": 9}}], "stages: a: train.global_batch_size=9 is not a multiple of 2"),
        ([{"train": {"global_batch_size": -4}}], "stages: a: train.global_batch_size=-4"),
        ([{"data": {"sequence_length": 4096}}], "stages: a: data.sequence_length=4096 is more than model.shape.max_po"),
        ([{"data": {"train": {}}}], "data.train names no shards"),
        ([{"data": {"train": {"nowhere": 1.0}}}], "nowhere"),
        ([{"schedule": {"kind": "linear"}}], "stages: a: .*schedule.kind"),
    ],
)
def test_what_a_stage_cannot_be_is_one_error_that_names_it(
    values: dict[str, Any], stages: list[dict[str, Any]], words: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**values, "stages": [{"name": "a", "first_step": 20, **one} for one in stages]}))
    with pytest.raises(MegadecError, match=words):
        pretrain(["--deepspeed", str(PROJECT / "ds_configs" / "zero1.json"), "--config", str(file)])


def test_a_new_stage_begins_behind_its_checkpoint_and_holds_what_differs_from_the_stage_before(
    values: dict[str, Any],
) -> None:
    values["stages"] = [{"name": "ramp", "first_step": 20, "train": {"global_batch_size": 16}}]
    path = saved({**values, "stages": [*values["stages"], {"name": "never", "first_step": 90}]}, 50)
    asked = {**values, "name": "y", "stages": [], "stage": "long", "checkpoint": {"resume": str(path), "keep_last": 9}}
    asked["train"] = {**values["train"], "global_batch_size": 16, "steps": 200}
    asked["data"] = {**values["data"], "sequence_length": 64}
    found = with_new_stage(from_dict(PretrainRun, asked))
    ramp, long = found.stages
    assert (ramp.name, ramp.train, found.train.steps) == ("ramp", {"global_batch_size": 16}, 100)
    assert (long.name, long.first_step) == ("long", 51)
    assert (long.data, long.train, long.model, long.schedule) == ({"sequence_length": 64}, {"steps": 200}, {}, {})
    assert (found.name, found.stage, found.checkpoint.keep_last) == ("y", None, 9)
    # From the run's folder the newest checkpoint is taken; when the stage has begun there, it goes on.
    in_place = {**asked, "name": "x", "checkpoint": {"resume": str(path.parents[1])}}
    [_, again] = with_new_stage(from_dict(PretrainRun, in_place)).stages
    assert again == long
    saved({**values, "stages": [to_dict(stage) for stage in found.stages]}, 70)
    [_, again] = with_new_stage(from_dict(PretrainRun, in_place)).stages
    assert again == long


def test_a_new_stage_that_cannot_be_is_refused(values: dict[str, Any]) -> None:
    def refused(words: str, **more: Any) -> None:
        with pytest.raises(ConfigError, match=words):
            with_new_stage(from_dict(PretrainRun, {**values, "stage": "new", **more}))

    refused("checkpoint.resume=auto names none")
    path = saved({**values, "stages": [{"name": "new", "first_step": 3}]}, 7, "before")
    named = {"checkpoint": {"resume": str(path)}}
    refused("stands twice", **named)
    refused("both given", **named, stages=[{"name": "other", "first_step": 3}])
    refused("resume=none names none", checkpoint={"resume": "none"})
    path = saved(
        {**values, "stages": [{"name": "far", "first_step": 3, "model": {"shape": {"rope_theta": 1e7}}}]}, 9, "far"
    )
    refused(r"model\.shape\.rope_theta=10000000\.0 in the last stage, and it is not", checkpoint={"resume": str(path)})
