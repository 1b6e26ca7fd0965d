"""What the guard makes of the numbers of a step."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest

from megadec.common.errors import ConfigError
from megadec.engine.health.guard import (
    GuardOptions,
    GuardState,
    Seen,
    after_good_step,
    after_roll_back,
    after_skip,
    detect,
    spike_limit,
    within_limits,
)
from megadec.engine.metrics.reports import Anomaly

OPTIONS = GuardOptions(loss_spike="skip", gradient_spike="roll_back", window=16, warmup_steps=8)


def seen(**changes: Any) -> Seen:
    values: dict[str, Any] = {
        "step": 40,
        "loss": 3.0,
        "norm": 0.5,
        "rank_losses": (29.0, 31.0),
        "rank_norms": (0.6, 0.7),
        "broken": ("", ""),
    }
    return Seen(**{**values, **changes})


def history(steps: int, options: GuardOptions = OPTIONS) -> GuardState:
    chance, state = random.Random(0), GuardState()
    for _ in range(steps):
        state = after_good_step(options, state, 3.0 + chance.uniform(-0.1, 0.1), 0.5 + chance.uniform(-0.1, 0.1))
    return state


def test_a_step_like_those_before_it_is_fit() -> None:
    assert detect(OPTIONS, history(16), seen()) is None
    assert detect(OPTIONS, GuardState(), seen(loss=1e9, norm=1e9)) is None, "nothing is known yet"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_found_with_its_rank(value: float) -> None:
    found = detect(OPTIONS, history(16), seen(loss=value, rank_losses=(29.0, value)))
    assert found is not None
    assert (found.kind, found.action, found.ranks, found.skips_update) == ("loss_not_finite", "stop", (1,), True)


def test_gradients_that_are_not_finite_are_found_with_rank_and_parameter() -> None:
    found = detect(OPTIONS, history(16), seen(norm=math.nan, broken=("", "norm.weight")))
    assert found is not None
    assert (found.kind, found.ranks, found.parameters) == ("gradients_not_finite", (1,), ("norm.weight",))
    assert "not finite on rank 1, first in norm.weight" in found.words


def test_gradients_that_only_their_sum_breaks_are_said_to_be_so() -> None:
    found = detect(OPTIONS, history(16), seen(norm=math.nan))
    assert found is not None
    assert found.ranks == ()
    assert "though those of every rank are" in found.words


def test_a_broken_gradient_of_one_rank_is_found_though_the_global_norm_hides_it() -> None:
    found = detect(OPTIONS, history(16), seen(broken=("lm_head.weight", "")))
    assert found is not None
    assert found.ranks == (0,)


def test_spikes_are_found_against_the_last_good_steps_and_name_the_rank_with_the_most() -> None:
    state = history(40)
    assert len(state.losses) == OPTIONS.window
    loss = detect(OPTIONS, state, seen(loss=4.5, rank_losses=(60.0, 30.0)))
    assert loss is not None
    assert (loss.kind, loss.action, loss.ranks) == ("loss_spike", "skip", (0,))
    norm = detect(OPTIONS, state, seen(norm=50.0, rank_norms=(0.5, 90.0)))
    assert norm is not None
    assert (norm.kind, norm.action, norm.ranks) == ("gradient_spike", "roll_back", (1,))
    quiet = GuardOptions(loss_spike="off", gradient_spike="report", window=16, warmup_steps=8)
    assert detect(quiet, state, seen(loss=4.5)) is None
    told = detect(quiet, state, seen(norm=50.0))
    assert told is not None
    assert not told.skips_update


@pytest.mark.parametrize("loss_answer", ["report", "skip", "roll_back", "stop"])
@pytest.mark.parametrize("gradient_answer", ["report", "skip", "roll_back", "stop"])
def test_of_two_spikes_the_stronger_answer_holds_and_both_are_told(loss_answer: Any, gradient_answer: Any) -> None:
    options = replace(OPTIONS, loss_spike=loss_answer, gradient_spike=gradient_answer)
    found = detect(options, history(16), seen(loss=4.5, norm=50.0, rank_losses=(60.0, 30.0), rank_norms=(0.5, 90.0)))
    assert found is not None
    strength = ["report", "skip", "roll_back", "stop"].index
    loss_is_stronger = strength(loss_answer) >= strength(gradient_answer)
    expected = ("loss_spike", loss_answer, (0,)) if loss_is_stronger else ("gradient_spike", gradient_answer, (1,))
    assert (found.kind, found.action, found.ranks) == expected
    assert "the loss is 4.5" in found.words
    assert "the gradient norm is 50" in found.words


def test_a_spike_that_stops_is_not_hidden_by_gradients_that_are_only_skipped() -> None:
    options = replace(OPTIONS, non_finite="skip", loss_spike="stop")
    found = detect(options, history(16), seen(loss=4.5, norm=math.nan, broken=("norm.weight", "")))
    assert found is not None
    assert (found.kind, found.action) == ("loss_spike", "stop")
    assert "not finite on rank 0, first in norm.weight" in found.words


def test_one_outlier_in_the_history_does_not_move_the_limit_and_equal_values_leave_room() -> None:
    values = list(history(16).losses)
    assert spike_limit([*values[:-1], 1e6], 10.0, 8) < 1.2 * spike_limit(values, 10.0, 8)
    assert spike_limit([2.0] * 8, 10.0, 8) == pytest.approx(2.4)
    assert spike_limit([2.0] * 7, 10.0, 8) == math.inf


def test_the_state_survives_json_and_an_old_checkpoint_has_an_empty_one() -> None:
    state = after_roll_back(history(3), after_skip(history(20), 21), saved_step=16, step=30)
    assert GuardState.from_json(json.loads(json.dumps(state.to_json()))) == state
    assert GuardState.from_json({}) == GuardState()


def test_steps_left_out_are_ranges_that_join() -> None:
    state = GuardState()
    for step in (3, 4, 9):
        state = after_skip(state, step)
    assert state.skipped == ((3, 4), (9, 9))
    assert after_roll_back(GuardState(), state, saved_step=4, step=12).skipped == ((3, 12),)


def test_a_good_step_ends_a_row_of_skips_and_limits_count_what_was_done() -> None:
    options = GuardOptions(skips_in_a_row=2, skips=3, roll_backs=1)

    def last(state: GuardState, action: Any) -> str | None:
        found = within_limits(options, state, Anomaly(9, "loss_spike", action, (), "a spike"))
        return found.words if found.action == "stop" else None

    state = after_skip(after_skip(GuardState(), 1), 2)
    assert last(state, "skip") == "a spike; guard.skips_in_a_row=2 is used up"
    state = after_skip(after_good_step(options, state, 3.0, 1.0), 4)
    assert last(state, "skip") == "a spike; guard.skips=3 is used up"
    assert last(state, "roll_back") is None
    assert last(after_roll_back(state, state, 2, 5), "roll_back") == "a spike; guard.roll_backs=1 is used up"
    assert last(state, "report") is None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"skips": -1}, "guard.skips"),
        ({"stall_seconds": -0.5}, "guard.stall_seconds"),
        ({"loss_factor": 0.0}, "guard.loss_factor"),
        ({"warmup_steps": 200}, "guard.warmup_steps"),
        ({"warmup_steps": 1}, "guard.warmup_steps"),
    ],
)
def test_options_that_cannot_be_are_refused_by_name(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        GuardOptions(**changes)
