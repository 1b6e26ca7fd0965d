"""The bits of a state and the loss that it gives are compared with what a checkpoint says of itself."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from megadec.common.errors import CheckpointError
from megadec.engine.checkpoint.verify import check_bits, check_loss, loss_check

SAVED = {"sequences": 1, "loss": 3.0, "tokens": 2, "sum_of_ids": 15, "precision": "fp32"}


def test_the_loss_is_the_mean_over_the_first_sequence_which_is_known_by_its_ids(
    make_engine: Any, make_job: Any
) -> None:
    assert loss_check(make_engine(loss=3.0), make_job(), 7) == SAVED


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
        check_loss(make_engine(loss=loss), job, 7, saved)
    else:
        with pytest.raises(CheckpointError, match="does not give the model that was trained"):
            check_loss(make_engine(loss=loss), job, 7, saved)


def test_the_loss_of_other_sequences_is_not_compared(
    make_engine: Any, make_job: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("megadec"), "propagate", True)
    check_loss(make_engine(loss=9.0), make_job(ids=(4, 5, 7)), 7, SAVED)
    assert "step 8 has other sequences" in caplog.text


def test_a_changed_bit_is_found_and_that_of_a_frozen_weight_counts_in_one_precision_only(make_engine: Any) -> None:
    engine = make_engine()
    live = engine.zero_state()
    sums = {name: {part: f"{value:016x}" for part, value in of.items()} for name, of in live.bit_sums().items()}
    manifest = {"optimizer_step": None, "bit_sums": sums}
    check_bits(live, engine.ranks, manifest, same_precision=True)
    tensors = {shard.name: tensor for shard, tensor in live.tensors()}
    tensors["frozen"][3] = 1.0
    check_bits(live, engine.ranks, manifest, same_precision=False)
    with pytest.raises(CheckpointError, match="weight of 'frozen' is not what was saved"):
        check_bits(live, engine.ranks, manifest, same_precision=True)
    tensors["matrix"][3] = 1.0
    with pytest.raises(CheckpointError, match="weight of 'matrix' is not what was saved"):
        check_bits(live, engine.ranks, manifest, same_precision=False)
