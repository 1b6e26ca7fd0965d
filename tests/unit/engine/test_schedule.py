"""The learning rate as a function of the step."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from megadec.engine.schedule import ScheduleOptions, learning_rate_factor

options = st.builds(
    ScheduleOptions,
    kind=st.sampled_from(["cosine", "warmup_stable_decay"]),
    warmup_steps=st.integers(0, 50),
    final_fraction=st.floats(0.0, 1.0),
    decay_fraction=st.floats(0.0, 1.0),
)


def factors(chosen: ScheduleOptions, steps: int) -> list[float]:
    return [learning_rate_factor(chosen, step, steps) for step in range(steps)]


@given(options, st.integers(1, 200))
def test_the_factor_rises_from_above_zero_in_warmup_never_after_it_and_stays_in_0_to_1(
    chosen: ScheduleOptions, steps: int
) -> None:
    found = factors(chosen, steps)
    assert all(0.0 <= factor <= 1.0 + 1e-12 for factor in found)
    assert all(factor > 0.0 for factor in found[: chosen.warmup_steps])
    rising, falling = found[: chosen.warmup_steps], found[max(chosen.warmup_steps - 1, 0) :]
    assert all(a < b for a, b in itertools.pairwise(rising))
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))


@given(options, st.integers(60, 200))
def test_the_last_update_has_the_final_fraction_and_what_follows_keeps_it(chosen: ScheduleOptions, steps: int) -> None:
    assume(chosen.kind == "cosine" or round(chosen.decay_fraction * steps) >= 2)
    for step in (steps - 1, steps + 9):
        assert learning_rate_factor(chosen, step, steps) == pytest.approx(chosen.final_fraction, abs=1e-9)


def test_the_stable_part_stays_at_the_peak_until_the_decay() -> None:
    chosen = ScheduleOptions(kind="warmup_stable_decay", warmup_steps=10, decay_fraction=0.2)
    assert set(factors(chosen, 100)[10:80]) == {1.0}
    assert learning_rate_factor(chosen, 85, 100) < 1.0
