"""What a run began from is said by its first checkpoint and carried over by every later one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from megadec.common.config import to_dict
from megadec.engine.checkpoint.origins import Source, origins_at_start, origins_of
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.runs.common import CheckpointOptions, Job
from megadec.engine.runs.pretrain import ModelOptions, Run


def make_job(folder: Path, resume: str = "auto", initial: str | None = None, stated: Source | None = None) -> Job:
    options = CheckpointOptions(resume=resume)
    model = ModelOptions(init_from=initial)
    run = Run(name=folder.name, tokenizer="t", output_folder=str(folder.parent), model=model, checkpoint=options)
    task = SimpleNamespace(manifest={"kind": "language_model", **({"initial": stated} if stated else {})})
    return cast(Job, SimpleNamespace(run=run, task=task))


def saved(job: Job, step: int, found: tuple[Path, dict[str, Any]] | None) -> tuple[Path, dict[str, Any]]:
    """A checkpoint of a start, as far as the next start looks at it."""
    manifest = {"run": to_dict(job.run), "task": job.task.manifest, "step": step, "tokens": 8 * step}
    manifest["origins"] = list(origins_at_start(job, found))
    return job.run.checkpoints / f"step_{step:08d}", json.loads(json.dumps(manifest))


def test_a_run_that_begins_says_its_model_and_later_starts_say_the_same_whatever_lies_there_now(tmp_path: Path) -> None:
    assert origins_at_start(make_job(tmp_path / "a"), None) == ()
    stated = {"name": "m/step_00000005", "step": 5}
    first = saved(make_job(tmp_path / "a", stated=stated), 10, None)
    assert first[1]["origins"] == [stated]
    later = saved(make_job(tmp_path / "a", stated={"name": "m/step_00000009", "step": 9}), 20, first)
    assert later[1]["origins"] == [stated]
    assert origins_at_start(make_job(tmp_path / "b", initial=str(tmp_path / "m")), None) == (
        {"path": str(tmp_path / "m")},
    )


def test_a_run_from_a_named_checkpoint_carries_it_over_with_what_that_began_from(tmp_path: Path) -> None:
    stated = {"name": "m/step_00000005", "step": 5}
    parent = saved(make_job(tmp_path / "a", stated=stated), 10, None)
    first = saved(make_job(tmp_path / "b", resume=str(parent[0])), 20, parent)
    source = {
        "kind": "checkpoint",
        "name": "a/step_00000010",
        "step": 10,
        "tokens": 80,
        "skipped_sha256": Skipped.from_manifest(parent[1]).sha256(10),
        "path": str(parent[0]),
    }
    assert first[1]["origins"] == [stated, source]
    later = saved(make_job(tmp_path / "b"), 30, first)
    assert later[1]["origins"] == [stated, source]
    # Back behind its own step: the path is that of the run itself.
    back = saved(make_job(tmp_path / "b", resume=str(first[0])), 25, first)
    assert back[1]["origins"] == [stated, source]


def test_a_checkpoint_that_was_copied_away_is_known_by_the_name_of_its_run(tmp_path: Path) -> None:
    _, manifest = saved(make_job(tmp_path / "runs" / "a"), 10, None)
    [source] = origins_at_start(make_job(tmp_path / "runs" / "b"), (tmp_path / "copy", manifest))
    assert source["name"] == "a/step_00000010"


def test_what_a_checkpoint_of_an_earlier_version_says_is_carried_over_too(tmp_path: Path) -> None:
    parent = tmp_path / "a" / "checkpoints" / "step_00000010"
    path, manifest = saved(make_job(tmp_path / "b", resume=str(parent)), 20, None)
    del manifest["origins"]
    assert list(origins_of(manifest, tmp_path / "b")) == [{"path": str(parent)}]
    assert list(origins_of(manifest, tmp_path / "a")) == []
    assert origins_at_start(make_job(tmp_path / "b"), (path, manifest)) == ({"path": str(parent)},)
