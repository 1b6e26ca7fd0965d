"""The other way round: from a document to every place of the sequence where it stands.

In: a data set's document or window, and the order of a stream. Out: steps and rows. The order is a keyed permutation,
so it is inverted and not replayed: a window is found in constant time for each time that it is seen, in any epoch and
at any weight. The shards keep no table from a document's id to its tokens, so finding ids reads the documents.json of
every block once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from megadec.data.index import DataSet, DocumentSpan
from megadec.data.shuffle import _EPOCH_DOMAIN, _SET_DOMAIN, ROUNDS, Shuffle, _constant, _key, _mix
from megadec.data.windows import BestFitPlan, CutPlan, WindowPlan


class Sighting(NamedTuple):
    """A row of a step, counted from 1 as metrics.jsonl counts steps and from 0 over all ranks, and what stood there."""

    step: int
    row: int
    data_set: int
    window: int


def find_documents(data: DataSet, ids: Iterable[str]) -> dict[str, list[DocumentSpan]]:
    """Where in the set the documents of these ids lie; several spans where an id comes again, none where it never does.

    A shard that is left out is not searched. Raises ShardError for a table that is not readable.
    """
    found: dict[str, list[DocumentSpan]] = {id: [] for id in ids}
    starts = data.block_starts.tolist()
    for block, (first, stop) in enumerate(pairwise(starts)):
        if data.is_lost_block(block):
            continue
        for span in data.documents_between(first, stop):
            if span.id in found:
                found[span.id].append(span)
    return found


def windows_with(plan: WindowPlan, span: DocumentSpan) -> list[int]:
    """The windows that hold a part of a document, ascending: those whose inputs are among its tokens."""
    last = span.first_token + span.tokens - 1
    if isinstance(plan, CutPlan):
        # The last token of a set is nobody's input.
        last = min(last, plan.data.tokens - 2)
        return list(range(span.first_token // plan.sequence_length, last // plan.sequence_length + 1))
    if isinstance(plan, BestFitPlan):
        packed = plan._packed
        inside = (packed.first <= last) & (packed.first + packed.predictions > span.first_token)
        rows = np.searchsorted(packed.row_ends, np.flatnonzero(inside), side="right") - 1
        return sorted(set(rows.tolist()))
    return [w for w in range(plan.windows) if any(a <= last and a + n > span.first_token for a, n in plan.pieces(w))]


def places_of(order: Shuffle, data_set: int, window: int, stop: int) -> list[int]:
    """The places below `stop` at which a window stands in the sequence, ascending: where Shuffle.at gives it back.

    A constant number of operations for each pass through the set, whatever the size of set and epoch.
    """
    draws, windows = order.draws[data_set], order.windows[data_set]
    if draws == 0 or stop <= 0:
        return []
    epochs = math.ceil(stop / order.windows_per_epoch)
    passes = math.ceil(epochs * draws / windows)
    passed = np.arange(passes, dtype=np.int64)
    index = unpermute(np.full(passes, window), windows, _key(order.seed, _SET_DOMAIN, data_set, passed))
    epoch, slot = np.divmod(passed * windows + index, draws)
    slot += sum(order.draws[:data_set])
    place = unpermute(slot, order.windows_per_epoch, _key(order.seed, _EPOCH_DOMAIN, 0, epoch))
    places = epoch * order.windows_per_epoch + place
    return sorted(places[places < stop].tolist())


def sightings(
    order: Shuffle, data_set: int, windows: Sequence[int], steps: int, global_batch_size: int
) -> list[Sighting]:
    """Every row of the first `steps` steps that held one of the windows of a set, in the order of training."""
    found = [
        Sighting(place // global_batch_size + 1, place % global_batch_size, data_set, window)
        for window in windows
        for place in places_of(order, data_set, window, steps * global_batch_size)
    ]
    return sorted(found)


def unpermute(value: np.ndarray, size: int, key: np.ndarray) -> np.ndarray:
    """The inverse of `order.permute`: int64 [n] in [0, size) -> the index that it was made from under the same key."""
    bits = max((size - 1).bit_length(), 2)
    index = _unfeistel(value.astype(np.uint64), key, bits)
    outside = np.flatnonzero(index >= size)
    while outside.size:
        index[outside] = _unfeistel(index[outside], key[outside], bits)
        outside = outside[index[outside] >= size]
    return index.astype(np.int64)


def _unfeistel(value: np.ndarray, key: np.ndarray, bits: int) -> np.ndarray:
    """The rounds of `order._feistel` from the last to the first."""
    right_bits = np.uint64(bits // 2)
    left_bits = np.uint64(bits) - right_bits
    one = np.uint64(1)
    left, right = value >> right_bits, value & ((one << right_bits) - one)
    for number in reversed(range(ROUNDS)):
        # The widths swap every round: in an even one the left half had the left width.
        width = left_bits if number % 2 == 0 else right_bits
        mixed = _mix(left ^ _mix(key + _constant(number + 1)))
        left, right = right ^ (mixed & ((one << width) - one)), left
    return (left << right_bits) | right
