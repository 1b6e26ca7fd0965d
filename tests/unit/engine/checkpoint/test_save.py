"""A step becomes a whole checkpoint under its name, and what was there before goes after that."""

import json
from typing import Any

import pytest

from megadec.engine.checkpoint import save
from megadec.engine.checkpoint.manifest import checkpoints_in, newest_whole
from megadec.engine.zero.state_files import StateFiles


def test_the_same_step_again_takes_the_name_of_the_one_before(make_engine: Any, make_job: Any, save_step: Any) -> None:
    engine, job = make_engine(), make_job()
    for value in (1.0, 2.0):
        engine.update(value)
        save_step(engine, job, 5)
    [path] = job.run.checkpoints.iterdir()
    assert newest_whole(job.run.checkpoints) is not None
    assert float(StateFiles(path).read("matrix")[0, 0]) == 2.0


def test_the_best_is_named_and_stays_and_older_ones_go(make_engine: Any, make_job: Any, save_step: Any) -> None:
    engine, job = make_engine(), make_job(keep_last=1)
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        save_step(engine, job, step, best)
    assert json.loads((job.run.folder / "best.json").read_text())["step"] == 2
    assert [path.name for path in checkpoints_in(job.run.checkpoints)] == ["step_00000002", "step_00000004"]


def test_what_fails_after_a_checkpoint_has_its_name_is_tried_again_alone(
    make_engine: Any, make_job: Any, save_step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def refuse_once(*_: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(save, "remove_old", refuse_once)
    job = make_job(retries=1)
    saved = save_step(make_engine(), job, 5)
    assert len(calls) == 2
    assert [saved.path] == list(job.run.checkpoints.iterdir()) == checkpoints_in(job.run.checkpoints)
