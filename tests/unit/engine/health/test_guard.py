"""What the guard makes of the numbers of a step."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from megadec.engine.health.guard import (
    GuardOptions,
    GuardState,
    after_good_step,
    after_roll_back,
    after_skip,
    describe,
    detect,
    documents_read,
    line_of,
    spike_limit,
    within_limits,
)
from megadec.engine.metrics.reports import Anomaly, StepReport
from megadec.engine.ranks import Ranks

OPTIONS = GuardOptions(loss_spike="skip", gradient_spike="roll_back", window=16, warmup_steps=8)


SEEN = StepReport(40, 3.0, 20, 400, 0.1, 0.5, rank_losses=(29.0, 31.0), rank_norms=(0.6, 0.7), broken=("", ""))


def history(steps: int, options: GuardOptions = OPTIONS) -> GuardState:
    chance, state = random.Random(0), GuardState()
    for _ in range(steps):
        state = after_good_step(options, state, 3.0 + chance.uniform(-0.1, 0.1), 0.5 + chance.uniform(-0.1, 0.1))
    return state


NAN, SPIKE, GRADIENTS = math.nan, ("loss_spike", "skip"), ("gradients_not_finite", "stop")


@pytest.mark.parametrize(
    ("changes", "what", "ranks", "words"),
    [
        *(
            ({"loss": x, "rank_losses": (29.0, x)}, ("loss_not_finite", "stop"), (1,), "not finite on rank 1")
            for x in (NAN, math.inf, -math.inf)
        ),
        (
            {"grad_norm": NAN, "broken": ("", "norm.weight")},
            GRADIENTS,
            (1,),
            "not finite on rank 1, first in norm.weight",
        ),
        ({"grad_norm": NAN}, GRADIENTS, (), "though those of every rank are"),
        # The global norm may hide the broken gradient of one rank.
        ({"broken": ("lm_head.weight", "")}, GRADIENTS, (0,), "not finite on rank 0"),
        ({"loss": 4.5, "rank_losses": (60.0, 30.0)}, SPIKE, (0,), "the last 16 good steps have a median of 3"),
        (
            {"grad_norm": 50.0, "rank_norms": (0.5, 90.0)},
            ("gradient_spike", "roll_back"),
            (1,),
            "rank 1 has the most of it",
        ),
    ],
)
def test_what_is_not_finite_or_a_spike_is_found_with_its_action_and_ranks(changes, what, ranks, words) -> None:
    anomaly = detect(OPTIONS, history(40), replace(SEEN, **changes))
    assert anomaly is not None
    assert ((anomaly.kind, anomaly.action), anomaly.ranks) == (what, ranks)
    assert words in anomaly.words
    assert anomaly.parameters == tuple(name for name in changes.get("broken", ()) if name)


def test_a_usual_step_is_fit_and_a_spike_may_be_passed_over_or_only_reported() -> None:
    assert detect(OPTIONS, history(16), SEEN) is None
    assert detect(OPTIONS, GuardState(), replace(SEEN, loss=1e9, grad_norm=1e9)) is None, "nothing is known yet"
    quiet = replace(OPTIONS, loss_spike="off", gradient_spike="report")
    assert detect(quiet, history(16), replace(SEEN, loss=4.5)) is None
    told = detect(quiet, history(16), replace(SEEN, grad_norm=50.0))
    assert told is not None
    assert told.action == "report"


@pytest.mark.parametrize("loss_answer", ["report", "skip", "roll_back", "stop"])
@pytest.mark.parametrize("gradient_answer", ["report", "skip", "roll_back", "stop"])
def test_of_two_spikes_the_stronger_answer_holds_and_both_are_told(loss_answer: Any, gradient_answer: Any) -> None:
    options = replace(OPTIONS, loss_spike=loss_answer, gradient_spike=gradient_answer)
    found = detect(
        options, history(16), replace(SEEN, loss=4.5, grad_norm=50.0, rank_losses=(60.0, 30.0), rank_norms=(0.5, 90.0))
    )
    assert found is not None
    strength = ["report", "skip", "roll_back", "stop"].index
    loss_is_stronger = strength(loss_answer) >= strength(gradient_answer)
    expected = ("loss_spike", loss_answer, (0,)) if loss_is_stronger else ("gradient_spike", gradient_answer, (1,))
    assert (found.kind, found.action, found.ranks) == expected
    assert "the loss is 4.5" in found.words
    assert "the gradient norm is 50" in found.words


def test_a_spike_that_stops_is_not_hidden_by_gradients_that_are_only_skipped() -> None:
    options = replace(OPTIONS, non_finite="skip", loss_spike="stop")
    found = detect(options, history(16), replace(SEEN, loss=4.5, grad_norm=math.nan, broken=("norm.weight", "")))
    assert found is not None
    assert (found.kind, found.action) == ("loss_spike", "stop")
    assert "not finite on rank 0, first in norm.weight" in found.words


def test_one_outlier_in_the_history_does_not_move_the_limit_and_equal_values_leave_room() -> None:
    values = list(history(16).losses)
    assert spike_limit([*values[:-1], 1e6], 10.0, 8) < 1.2 * spike_limit(values, 10.0, 8)
    assert spike_limit([2.0] * 8, 10.0, 8) == pytest.approx(2.4)
    assert spike_limit([2.0] * 7, 10.0, 8) == math.inf


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


FOUND = Anomaly(8, "loss_spike", "skip", (1,), "the loss is 9")


def read(step: int, rank: int, world_size: int) -> Sequence[str]:
    return [f"{step}/{rank}/{world_size}"]


@pytest.mark.parametrize(
    ("rank", "named", "found"),
    [
        (0, (1,), {1: ["7/1/3"]}),
        (1, (1,), {1: ["7/1/3"]}),
        (2, (1,), {}),
        (0, (), {0: ["7/0/3"], 1: ["7/1/3"], 2: ["7/2/3"]}),
    ],
)
def test_the_first_rank_and_those_that_are_named_read_the_documents_of_the_step(rank, named, found) -> None:
    ranks = Ranks(rank, 3, torch.device("cpu"))
    assert documents_read(read, ranks, replace(FOUND, ranks=named)) == found


def test_a_log_line_says_what_was_done_and_shows_a_few_documents() -> None:
    assert describe(FOUND, {}) == "step 8: the loss is 9; no rank updated its weights"
    names = [f"wiki-{number}" for number in range(9)]
    told = describe(replace(FOUND, action="stop"), {1: names})
    assert told.endswith("; the weights were not changed; rank 1 read wiki-0, wiki-1, wiki-2, wiki-3, wiki-4, wiki-5"
                         " and 3 more (metrics.jsonl has all)")  # fmt: skip
    assert describe(FOUND, dict.fromkeys(range(20), names)).count("read") == 6


def test_the_line_of_the_metrics_has_every_document_and_null_for_what_json_cannot_say() -> None:
    report = StepReport(8, math.inf, 100, 1000, 0.1, math.nan, (), FOUND)
    line = json.loads(json.dumps(line_of(FOUND, report, {1: ["wiki-3"]}), allow_nan=False))
    assert (line["found"], line["words"], line["documents"]) == ("loss_spike", "the loss is 9", {"1": ["wiki-3"]})
    assert (line["loss"], line["grad_norm"]) == (None, None)
    assert line_of(FOUND, replace(report, loss=2.5), {})["loss"] == 2.5
