"""What was saved is loaded, at another stage too, and what is not what was saved is refused."""

import json
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from megadec.common.errors import CheckpointError
from megadec.engine.checkpoint.load import load_checkpoint
from megadec.engine.checkpoint.manifest import Progress, read_manifest
from megadec.engine.checkpoint.rng_state import random_file, random_state, restore_random_state
from megadec.engine.checkpoint.verify import measure_loss, verify_bits, verify_loss


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


SAVED = {"sequences": 1, "loss": 3.0, "tokens": 2, "sum_of_ids": 15, "precision": "fp32"}


def test_the_loss_is_the_mean_over_the_first_sequence_which_is_known_by_its_ids(
    make_engine: Any, make_job: Any
) -> None:
    assert measure_loss(make_engine(loss=3.0), make_job(), 7) == SAVED


@pytest.mark.parametrize(
    ("loss", "saved_in", "now_in", "same"),
    [
        (3.0001, "fp32", "fp32", True),
        (3.01, "fp32", "fp32", False),
        (3.01, "bf16", "bf16", True),
        (3.01, "bf16", "fp32", True),
        (3.01, "fp32", "bf16", True),
        (3.1, "bf16", "bf16", False),
    ],
)
def test_a_loss_is_the_same_within_what_the_wider_of_two_precisions_rounds(
    make_engine: Any, make_job: Any, loss: float, saved_in: str, now_in: str, same: bool
) -> None:
    saved = SAVED | {"precision": saved_in}
    job = make_job(precision=now_in)
    if same:
        verify_loss(make_engine(loss=loss), job, 7, saved)
    else:
        with pytest.raises(CheckpointError, match="does not give the model that was trained"):
            verify_loss(make_engine(loss=loss), job, 7, saved)


def test_the_loss_of_other_sequences_is_not_compared(
    make_engine: Any, make_job: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("megadec"), "propagate", True)
    verify_loss(make_engine(loss=9.0), make_job(ids=(4, 5, 7)), 7, SAVED)
    assert "step 8 has other sequences" in caplog.text


def test_a_changed_bit_is_found_and_that_of_a_frozen_weight_counts_in_one_precision_only(make_engine: Any) -> None:
    engine = make_engine()
    live = engine.zero_state()
    sums = {name: {part: f"{value:016x}" for part, value in of.items()} for name, of in live.bit_sums().items()}
    manifest = {"optimizer_step": None, "bit_sums": sums}
    verify_bits(live, engine.ranks, manifest, same_precision=True)
    tensors = {shard.name: tensor for shard, tensor in live.tensors()}
    tensors["frozen"][3] = 1.0
    verify_bits(live, engine.ranks, manifest, same_precision=False)
    with pytest.raises(CheckpointError, match="weight of 'frozen' is not what was saved"):
        verify_bits(live, engine.ranks, manifest, same_precision=True)
    tensors["matrix"][3] = 1.0
    with pytest.raises(CheckpointError, match="weight of 'matrix' is not what was saved"):
        verify_bits(live, engine.ranks, manifest, same_precision=False)


def draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())


def test_what_comes_next_is_what_would_have_come_and_a_rank_that_was_not_there_draws_on(tmp_path: Path) -> None:
    (tmp_path / random_file(1)).write_bytes(random_state())
    first = draw()
    restore_random_state(tmp_path, 1)
    assert draw() == first
    restore_random_state(tmp_path, 2)
    assert draw() != first
