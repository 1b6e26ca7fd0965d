"""Which windows of a held-out set are measured."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import ConfigError
from megadec.engine.evaluate import EvaluateOptions, spread


@given(st.integers(0, 10**9), st.integers(1, 500))
def test_the_windows_that_are_measured_are_distinct_in_order_and_reach_over_the_whole_set(
    windows: int, wanted: int
) -> None:
    taken = spread(windows, wanted)
    assert len(taken) == min(windows, wanted)
    assert all(a < b for a, b in itertools.pairwise(taken))
    if taken:
        assert taken[0] == 0
        assert windows - taken[-1] <= -(-windows // len(taken))


def test_a_small_set_is_measured_whole() -> None:
    assert spread(7, 100) == list(range(7))


@pytest.mark.parametrize("wrong", [{"interval_steps": 0}, {"windows": 0}, {"micro_batch_size": 0}])
def test_counts_below_one_are_refused_by_their_key(wrong: dict[str, int]) -> None:
    [key] = wrong
    with pytest.raises(ConfigError, match=f"evaluate.{key}=0"):
        EvaluateOptions(**wrong)  # type: ignore[arg-type]
