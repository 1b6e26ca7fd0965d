"""When a run may go on from a checkpoint and when it is another run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, ConfigError
from megadec.engine.checkpoint.origins import Source, origins_at_start, origins_of
from megadec.engine.checkpoint.resume import check_fits, check_same_run
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CheckpointOptions, Job
from megadec.engine.runs.pretrain import ModelOptions, PretrainRun
from tests.support.decoders import tiny_shape

HERE = Path("runs/x/checkpoints/step_00000010")


def changed(**values: Any) -> dict[str, Any]:
    run = to_dict(PretrainRun(name="x", tokenizer="t"))
    for name, value in values.items():
        section, _, key = name.partition("__")
        if key:
            run[section][key] = value
        else:
            run[section] = value
    return run


def test_what_does_not_change_the_course_may_differ_when_a_run_goes_on() -> None:
    now = changed(
        checkpoint__interval_steps=7,
        evaluate__sets={"more": "shards/more"},
        train__stop_at_step=3,
        train__micro_batch_size=1,
        output_folder="elsewhere",
        tokenizer="moved/tokenizer.model",
        data__train={"moved/shards": 1.0},
        metrics__peak_flops=1e12,
        model__execution={"compile": "blocks", "recompute": {"mode": "full"}},
    )
    check_same_run(HERE, changed(), now, changed(), 10, named=False)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train__steps", 5),
        ("train__precision", "fp32"),
        ("train__global_batch_size", 8),
        ("optimizer__learning_rate", 0.5),
        ("data__sequence_length", 8),
        ("model__shape", {"layers": 9}),
        ("seed", 1),
    ],
)
def test_what_changes_the_course_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key.replace("__", ".")):
        check_same_run(HERE, changed(), changed(**{key: value}), changed(), 10, named=False)


def test_a_checkpoint_named_on_purpose_may_begin_another_course_of_the_same_model() -> None:
    now = changed(train__steps=5, optimizer__learning_rate=0.5, schedule__warmup_steps=0, name="y")
    check_same_run(HERE, changed(), now, changed(), 10, named=True)
    with pytest.raises(ConfigError, match=r"model\.shape\.layers"):
        check_same_run(HERE, changed(), changed(model__shape={"layers": 9}), changed(), 10, named=True)


def test_an_option_that_came_after_the_checkpoint_counts_there_as_its_default() -> None:
    old = changed()
    del old["model"]["dropout"]
    check_same_run(HERE, old, changed(), changed(), 10, named=False)
    with pytest.raises(ConfigError, match=r"model\.dropout: 0\.0 there, 0\.1 here"):
        check_same_run(HERE, old, changed(model__dropout=0.1), changed(), 10, named=False)


def model(kind: str = "language_model", tokenizer: str = "abc", **shape: float) -> Job:
    """A job as far as a checkpoint is compared with it."""
    made = tiny_shape(**shape)
    known = SimpleNamespace(sha256=tokenizer, path="tokenizer.model")
    return cast(Job, SimpleNamespace(task=SimpleNamespace(kind=kind), shape_of=lambda _: made, tokenizer=known))


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (model(layers=3), "another model"),
        (model(rope_theta=500.0), "another model"),
        (model(kind="classification"), "another model: language_model"),
        (model(tokenizer="def"), "another tokenizer than tokenizer.model"),
    ],
)
def test_a_checkpoint_of_another_model_or_tokenizer_is_refused(job: Job, words: str) -> None:
    shape = tiny_shape().to_dict()
    del shape["attention_bias"], shape["rope_theta"]  # as if they had come after the checkpoint: they count as defaults
    manifest = {"step": 10, "task": {"kind": "language_model"}, "shape": shape, "tokenizer": {"sha256": "abc"}}
    check_fits(HERE, manifest, model())
    with pytest.raises(CheckpointError, match=words):
        check_fits(HERE, manifest, job)


def run_from(folder: Path, resume: str = "auto", initial: str | None = None, stated: Source | None = None) -> Job:
    options = CheckpointOptions(resume=resume)
    model = ModelOptions(init_from=initial)
    run = PretrainRun(
        name=folder.name, tokenizer="t", output_folder=str(folder.parent), model=model, checkpoint=options
    )
    task = SimpleNamespace(manifest={"kind": "language_model", **({"initial": stated} if stated else {})})
    return cast(Job, SimpleNamespace(run=run, task=task))


def saved(job: Job, step: int, found: tuple[Path, dict[str, Any]] | None) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of a start, as far as the next start looks at it."""
    manifest = {"run": to_dict(job.run), "task": job.task.manifest, "step": step, "tokens": 8 * step}
    manifest["origins"] = list(origins_at_start(job, found))
    return job.run.checkpoints / f"step_{step:08d}", json.loads(json.dumps(manifest))


def test_a_run_that_begins_says_its_model_and_later_starts_say_the_same_whatever_lies_there_now(tmp_path: Path) -> None:
    assert origins_at_start(run_from(tmp_path / "a"), None) == ()
    stated = {"name": "m/step_00000005", "step": 5}
    first = saved(run_from(tmp_path / "a", stated=stated), 10, None)
    assert first[1]["origins"] == [stated]
    later = saved(run_from(tmp_path / "a", stated={"name": "m/step_00000009", "step": 9}), 20, first)
    assert later[1]["origins"] == [stated]
    assert origins_at_start(run_from(tmp_path / "b", initial=str(tmp_path / "m")), None) == (
        {"path": str(tmp_path / "m")},
    )


def test_a_run_from_a_named_checkpoint_carries_it_over_with_what_that_began_from(tmp_path: Path) -> None:
    stated = {"name": "m/step_00000005", "step": 5}
    parent = saved(run_from(tmp_path / "a", stated=stated), 10, None)
    first = saved(run_from(tmp_path / "b", resume=str(parent[0])), 20, parent)
    source = {
        "kind": "checkpoint",
        "name": "a/step_00000010",
        "step": 10,
        "tokens": 80,
        "skipped_sha256": Skipped.from_manifest(parent[1]).sha256(10),
        "path": str(parent[0]),
    }
    assert first[1]["origins"] == [stated, source]
    later = saved(run_from(tmp_path / "b"), 30, first)
    assert later[1]["origins"] == [stated, source]
    # Back behind its own step: the path is that of the run itself.
    back = saved(run_from(tmp_path / "b", resume=str(first[0])), 25, first)
    assert back[1]["origins"] == [stated, source]
    # Copied away from its run, the checkpoint is known by the run's name inside it.
    [_, copied] = origins_at_start(run_from(tmp_path / "b"), (tmp_path / "copy", parent[1]))
    assert copied["name"] == source["name"]


def test_what_a_checkpoint_of_an_earlier_version_says_is_carried_over_too(tmp_path: Path) -> None:
    parent = tmp_path / "a" / "checkpoints" / "step_00000010"
    path, manifest = saved(run_from(tmp_path / "b", resume=str(parent)), 20, None)
    del manifest["origins"]
    assert list(origins_of(manifest, tmp_path / "b")) == [{"path": str(parent)}]
    assert list(origins_of(manifest, tmp_path / "a")) == []
    assert origins_at_start(run_from(tmp_path / "b"), (path, manifest)) == ({"path": str(parent)},)
