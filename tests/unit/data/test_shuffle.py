"""The order: any place is found at once, a window comes once a pass, and weights count exactly."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.common.errors import ConfigError
from megadec.data.shuffle import Shuffle, permute


def seen(order: Shuffle, first: int, count: int) -> Counter[tuple[int, int]]:
    sets, windows = order.at(first, count)
    return Counter(zip(sets.tolist(), windows.tolist(), strict=True))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60)
def test_permute_is_a_permutation_of_any_size_and_has_an_inverse(size, key):
    indices, keys = np.arange(size), np.full(size, key, dtype=np.uint64)
    shuffled = permute(indices, size, keys)
    assert np.array_equal(np.sort(shuffled), indices)
    assert np.array_equal(permute(shuffled, size, keys, inverse=True), indices)


def test_epochs_and_seeds_have_orders_of_their_own():
    first = Shuffle([1000], [1.0], seed=0)
    second = Shuffle([1000], [1.0], seed=1)
    rows = [first.at(0, 1000)[1], first.at(1000, 1000)[1], second.at(0, 1000)[1]]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (rows[one] == rows[other]).mean() < 0.02


def test_the_order_looks_random():
    size = 20_000
    place = np.argsort(Shuffle([size], [1.0], seed=5).at(0, size)[1])
    # Under a random permutation the rank correlation has a standard deviation of 1 / sqrt(size), and neighbours are
    # on the average a third of the length apart.
    assert abs(np.corrcoef(place, np.arange(size))[0, 1]) < 5 / size**0.5
    assert abs(np.abs(np.diff(place)).mean() / size - 1 / 3) < 0.01


@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from([0.3, 0.5, 1.0, 1.7, 3.0])), min_size=1, max_size=4),
    st.integers(0, 100),
)
@settings(max_examples=60)
def test_an_epoch_has_what_the_weights_say_and_windows_of_a_set_are_seen_equally_often_give_or_take_one(sets, seed):
    windows, weights = [n for n, _ in sets], [w for _, w in sets]
    if sum(round(w * n) for n, w in sets) == 0:
        return
    order = Shuffle(windows, weights, seed)
    counts = Counter()
    for epoch in range(5):
        counts += seen(order, epoch * order.windows_per_epoch, order.windows_per_epoch)
        for number, (n, weight) in enumerate(sets):
            mine = [counts[number, window] for window in range(n)]
            assert sum(mine) == (epoch + 1) * round(weight * n)
            assert max(mine) - min(mine) <= 1


def test_any_part_of_the_sequence_is_found_without_the_rest():
    order = Shuffle([313, 57], [1.0, 2.0], seed=9)
    sets, windows = order.at(0, 2000)
    for first, count in ((0, 1), (426, 3), (427, 427), (1999, 1), (100, 0)):
        part_sets, part_windows = order.at(first, count)
        assert part_sets.tolist() == sets[first : first + count].tolist()
        assert part_windows.tolist() == windows[first : first + count].tolist()


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.7, 3.0])), min_size=1, max_size=4),
    st.integers(0, 2**63),
    st.integers(0, 400),
)
@settings(max_examples=30)
def test_the_places_of_a_window_are_those_where_the_order_has_it(sets, seed, stop):
    windows, weights = [n for n, _ in sets], [w for _, w in sets]
    if sum(round(w * n) for n, w in sets) == 0:
        return
    order = Shuffle(windows, weights, seed)
    numbers, which = order.at(0, stop)
    for number, count in enumerate(windows):
        for window in range(count):
            there = np.flatnonzero((numbers == number) & (which == window)).tolist()
            assert order.places_of(number, window, stop) == there


def test_any_place_and_any_window_among_seven_hundred_million_are_found_at_once():
    order = Shuffle([700_000_000, 33_000_000], [1.0, 2.0], seed=9)
    began = time.perf_counter()
    sets, windows = order.at(1_500_000_000, 1024)
    places = order.places_of(int(sets[0]), int(windows[0]), 1_500_000_001)
    assert time.perf_counter() - began < 0.2
    assert places[-1] == 1_500_000_000


def test_the_order_of_version_1_stays_as_it_is():
    # A checkpoint names windows by their place: when these numbers change, order.VERSION has to.
    sets, windows = Shuffle([10, 4], [1.0, 2.0], seed=7).at(0, 18)
    assert sets.tolist() == [0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1, 0, 1, 0]
    assert windows.tolist() == [3, 6, 4, 1, 3, 8, 0, 2, 1, 9, 2, 3, 1, 2, 0, 5, 0, 7]


@pytest.mark.parametrize(
    ("weight", "words"),
    [(-1.0, "weight -1.0"), (float("nan"), "weight nan"), (float("inf"), "weight inf"), (0.0, "leave no window")],
)
def test_a_weight_that_is_no_count_or_leaves_nothing_is_a_config_error(weight, words):
    with pytest.raises(ConfigError, match=words):
        Shuffle([10], [weight], seed=0)
