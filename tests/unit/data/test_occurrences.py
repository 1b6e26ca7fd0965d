"""From a document to its steps: the inverse of the order, and the same answer as replaying every step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.data.index import DataSet
from megadec.data.occurrences import find_documents, places_of, sightings, unpermute, windows_with
from megadec.data.shuffle import Shuffle, permute
from megadec.data.stream import TrainStream, Window
from megadec.data.windows import plan_windows


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_unpermute_undoes_permute_and_permute_undoes_unpermute(size, key):
    indices, keys = np.arange(size), np.full(size, key, dtype=np.uint64)
    assert np.array_equal(unpermute(permute(indices, size, keys), size, keys), indices)
    assert np.array_equal(permute(unpermute(indices, size, keys), size, keys), indices)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.0, 0.3, 0.5, 1.0, 1.7, 3.0])), min_size=1, max_size=4),
    st.integers(0, 2**63),
    st.integers(0, 400),
)
@settings(max_examples=60, deadline=None)
def test_the_places_of_a_window_are_those_where_the_order_has_it(sets, seed, stop):
    windows, weights = [n for n, _ in sets], [w for _, w in sets]
    if sum(round(w * n) for n, w in sets) == 0:
        return
    order = Shuffle(windows, weights, seed)
    numbers, which = order.at(0, stop)
    for number, count in enumerate(windows):
        for window in range(count):
            there = np.flatnonzero((numbers == number) & (which == window)).tolist()
            assert places_of(order, number, window, stop) == there


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
@pytest.mark.parametrize("sequence_length", [16, 100, 700])
def test_every_document_is_found_in_the_windows_that_hold_it_and_in_no_other(
    tiny_shards: Path, tmp_path: Path, packing: str, sequence_length: int
) -> None:
    data = DataSet.open(tiny_shards)
    stream = TrainStream([(data, 1.0)], sequence_length, packing, 0, 1, tmp_path)
    plan = plan_windows(data, sequence_length, packing, tmp_path)
    held: dict[str, list[int]] = {}
    for window in range(plan.windows):
        for span in stream.documents_of(Window(0, window)):
            held.setdefault(span.id, []).append(window)
    spans = data.documents_between(0, data.tokens)
    assert len(spans) == data.documents
    for span in spans:
        assert windows_with(plan, span) == held[span.id]


@pytest.mark.parametrize("packing", ["cut", "best_fit"])
def test_the_steps_of_a_document_are_those_that_a_replay_of_the_run_finds(
    tiny_shards: Path, tmp_path: Path, packing: str
) -> None:
    data = DataSet.open(tiny_shards)
    weights = (1.5, 0.4)
    stream = TrainStream([(data, weight) for weight in weights], 64, packing, 7, 6, tmp_path)
    plan = plan_windows(data, 64, packing, tmp_path)
    order = Shuffle([plan.windows] * 2, weights, 7)
    steps = int(2.5 * stream.steps_per_epoch)
    replayed: dict[str, list[tuple[int, int, int, int]]] = {}
    for step in range(steps):
        for row, window in enumerate(stream.windows_of(step)):
            for span in stream.documents_of(window):
                replayed.setdefault(span.id, []).append((step + 1, row, *window))
    spans = data.documents_between(0, data.tokens)
    found = find_documents(data, [span.id for span in spans])
    for span in spans:
        assert found[span.id] == [span]
        windows = windows_with(plan, span)
        seen = [s for number in range(2) for s in sightings(order, number, windows, steps, 6)]
        assert sorted(seen) == replayed.get(span.id, [])


def test_an_id_that_is_nowhere_has_no_span(tiny_shards: Path) -> None:
    assert find_documents(DataSet.open(tiny_shards), ["nobody"]) == {"nobody": []}


def test_a_window_among_seven_hundred_million_is_found_at_once() -> None:
    order = Shuffle([700_000_000, 33_000_000], [1.0, 2.0], seed=9)
    sets, windows = order.at(1_500_000_000, 1)
    began = time.perf_counter()
    places = places_of(order, int(sets[0]), int(windows[0]), 1_500_000_001)
    assert time.perf_counter() - began < 0.1
    assert places[-1] == 1_500_000_000
