"""What was saved is loaded, at another stage too, and what is not what was saved is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from megadec.common.errors import CheckpointError, TrainingError
from megadec.engine.checkpoint.load import load_checkpoint, roll_back
from megadec.engine.checkpoint.manifest import Progress, read_manifest


def values_of(engine: Any) -> set[float]:
    return {value for _, tensor in engine.zero_state().tensors() for value in tensor.tolist()}


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_a_checkpoint_gives_weights_progress_and_what_would_be_drawn_next(
    make_engine: Any, make_job: Any, save_step: Any, stage: int
) -> None:
    saving, loading = make_engine(), make_engine(stage)
    saving.update(1.5)
    path = save_step(saving, make_job(), 5).path
    drawn = torch.rand(3)
    progress = load_checkpoint(loading, make_job(stage=stage), path, read_manifest(path))
    assert progress == Progress(5, 40, 2.5)
    assert values_of(loading) == {1.5}
    assert torch.equal(torch.rand(3), drawn)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer_step": 5}, "the optimizer has made None updates; the checkpoint was saved after 5"),
        ({"bit_sums": {}}, "weight of 'bias' is not what was saved"),
        ({"loss_check": {"sequences": 1, "loss": 3.1, "tokens": 2, "sum_of_ids": 15, "precision": "fp32"}}, "the loss"),
    ],
)
def test_a_state_that_the_manifest_does_not_prove_is_refused(
    make_engine: Any, make_job: Any, save_step: Any, change: dict[str, Any], words: str
) -> None:
    path = save_step(make_engine(), make_job(), 5).path
    manifest = json.loads(json.dumps(read_manifest(path) | change))
    with pytest.raises(CheckpointError, match=f"step_00000005: {words}"):
        load_checkpoint(make_engine(), make_job(), path, manifest)


def test_a_roll_back_takes_the_newest_whole_checkpoint_and_needs_one(
    make_engine: Any, make_job: Any, save_step: Any
) -> None:
    engine, job = make_engine(), make_job()
    with pytest.raises(TrainingError, match=r"step 9: guard wants to roll back, and .* holds no checkpoint yet"):
        roll_back(engine, job, 9)
    for step in (4, 6):
        engine.update(float(step))
        save_step(engine, job, step)
    (job.run.checkpoints / "step_00000006" / "run.yaml").unlink()
    assert roll_back(engine, job, 9).step == 4
    assert values_of(engine) == {4.0}
