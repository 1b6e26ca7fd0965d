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
    StepFigures,
    after_good_step,
    after_roll_back,
    after_skip,
    detect,
    spike_limit,
    within_limits,
)
from megadec.engine.metrics.reports import Anomaly

OPTIONS = GuardOptions(loss_spike="skip", gradient_spike="roll_back", window=16, warmup_steps=8)


def seen(**changes: Any) -> StepFigures:
    values: dict[str, Any] = {
        "step": 40,
        "loss": 3.0,
        "norm": 0.5,
        "rank_losses": (29.0, 31.0),
        "rank_norms": (0.6, 0.7),
        "broken": ("", ""),
    }
    return StepFigures(**{**values, **changes})


def history(steps: int, options: GuardOptions = OPTIONS) -> GuardState:
    chance, state = random.Random(0), GuardState()
    for _ in range(steps):
        state = after_good_step(options, state, 3.0 + chance.uniform(-0.1, 0.1), 0.5 + chance.uniform(-0.1, 0.1))
    return state


def found(**changes: Any) -> Anomaly:
    """In a step with these numbers, behind 40 usual ones."""
    anomaly = detect(OPTIONS, history(40), seen(**changes))
    assert anomaly is not None
    return anomaly


def test_a_step_like_those_before_it_is_fit() -> None:
    assert detect(OPTIONS, history(16), seen()) is None
    assert detect(OPTIONS, GuardState(), seen(loss=1e9, norm=1e9)) is None, "nothing is known yet"


NAN, SPIKE, GRADIENTS = math.nan, ("loss_spike", "skip"), ("gradients_not_finite", "stop")


@pytest.mark.parametrize(
    ("changes", "what", "ranks", "words"),
    [
        *(
            ({"loss": x, "rank_losses": (29.0, x)}, ("loss_not_finite", "stop"), (1,), "not finite on rank 1")
            for x in (NAN, math.inf, -math.inf)
        ),
        ({"norm": NAN, "broken": ("", "norm.weight")}, GRADIENTS, (1,), "not finite on rank 1, first in norm.weight"),
        ({"norm": NAN}, GRADIENTS, (), "though those of every rank are"),
        # The global norm may hide the broken gradient of one rank.
        ({"broken": ("lm_head.weight", "")}, GRADIENTS, (0,), "not finite on rank 0"),
        ({"loss": 4.5, "rank_losses": (60.0, 30.0)}, SPIKE, (0,), "the last 16 good steps have a median of 3"),
        ({"norm": 50.0, "rank_norms": (0.5, 90.0)}, ("gradient_spike", "roll_back"), (1,), "rank 1 has the most of it"),
    ],
)
def test_what_is_not_finite_or_a_spike_is_found_with_its_action_and_ranks(changes, what, ranks, words) -> None:
    anomaly = found(**changes)
    assert ((anomaly.kind, anomaly.action), anomaly.ranks) == (what, ranks)
    assert words in anomaly.words
    assert anomaly.parameters == tuple(name for name in changes.get("broken", ()) if name)


def test_a_spike_may_be_passed_over_or_only_reported() -> None:
    quiet = replace(OPTIONS, loss_spike="off", gradient_spike="report")
    assert detect(quiet, history(16), seen(loss=4.5)) is None
    told = detect(quiet, history(16), seen(norm=50.0))
    assert told is not None
    assert told.action == "report"


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
