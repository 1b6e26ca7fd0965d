"""Packing: no prediction is lost or doubled, and rows are filled as the textbook rule fills them."""

import itertools
import time

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.data.packing import pack

LENGTHS = st.lists(st.integers(2, 60), min_size=1, max_size=80)


def packed_rows(lengths: list[int], sequence_length: int) -> list[list[tuple[int, int]]]:
    tokens = np.array(lengths, dtype=np.int64)
    packed = pack(np.cumsum(tokens) - tokens, tokens, sequence_length)
    ends = packed.sequence_ends.tolist()
    pieces = list(zip(packed.first.tolist(), packed.predictions.tolist(), strict=True))
    return [pieces[start:stop] for start, stop in itertools.pairwise(ends)]


def one_by_one(sizes: list[int], sequence_length: int) -> list[int]:
    """Best fit, longest first, as the textbook says it: the room left in each row."""
    rooms: list[int] = []
    for size in sorted(sizes, reverse=True):
        fitting = [room for room in rooms if room >= size]
        if fitting:
            rooms[rooms.index(min(fitting))] -= size
        else:
            rooms.append(sequence_length - size)
    return sorted(rooms)


@given(LENGTHS, st.integers(1, 40))
@settings(max_examples=200)
def test_every_prediction_is_in_exactly_one_row_and_only_documents_longer_than_a_row_are_cut(lengths, sequence_length):
    pieces = [piece for row in packed_rows(lengths, sequence_length) for piece in row]
    predicted = sorted(token for first, count in pieces for token in range(first + 1, first + count + 1))
    starts = np.cumsum([0, *lengths]).tolist()
    assert predicted == sorted(set(range(starts[-1])) - set(starts))
    whole = {(start, n - 1) for start, n in zip(starts, lengths, strict=False) if n - 1 <= sequence_length}
    assert whole <= set(pieces)


@given(LENGTHS, st.integers(1, 40))
@settings(max_examples=200)
def test_rows_are_never_overfull_nor_empty_and_filled_as_placing_one_by_one_does(lengths, sequence_length):
    rows = [[count for _, count in row] for row in packed_rows(lengths, sequence_length)]
    rooms = sorted(sequence_length - sum(row) for row in rows)
    assert rooms == one_by_one([count for row in rows for count in row], sequence_length)
    assert 0 <= rooms[0] <= rooms[-1] < sequence_length


def test_a_million_documents_are_packed_in_seconds():
    tokens = np.clip(np.random.default_rng(0).lognormal(5.5, 1.2, 1_000_000).astype(np.int64), 2, None)
    began = time.perf_counter()
    packed = pack(np.cumsum(tokens) - tokens, tokens, 2048)
    assert time.perf_counter() - began < 5
    rows = len(packed.sequence_ends) - 1
    assert packed.predictions.sum() / (rows * 2048) > 0.999
