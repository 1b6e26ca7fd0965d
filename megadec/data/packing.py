"""Best-fit-decreasing: whole documents into rows of a fixed length, with as little padding as a greedy rule can.

In: first token and length of each document. Out: the pieces of each row. All documents of one length are placed at
once, in the rows that the one-by-one rule would choose, so a million documents take a second or so; which of several
equal rows takes which of several equal documents follows their numbers.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np


class Packed(NamedTuple):
    """Pieces by row: row r holds pieces row_ends[r], ..., row_ends[r + 1] - 1 (row_ends int64 [rows + 1], first int64
    [pieces]: number of the first token, predictions int32 [pieces])."""

    row_ends: np.ndarray
    first: np.ndarray
    predictions: np.ndarray


def pack(first: np.ndarray, tokens: np.ndarray, sequence_length: int) -> Packed:
    """Pack documents of `tokens` tokens (int64 [documents], at least 2 each) into rows of `sequence_length`
    predictions.

    A document of n tokens holds n - 1 predictions. Longer ones are cut into full rows and a rest. Every prediction of
    every document is in exactly one row.
    """
    piece_first, predictions = _pieces(first, tokens, sequence_length)
    longest_first = np.argsort(-predictions, kind="stable")
    row_of_piece = np.empty(len(predictions), dtype=np.int64)
    row_of_piece[longest_first] = _rows(predictions[longest_first], sequence_length)
    # Inside a row longest first; stable, so equal input gives equal rows.
    by_row = longest_first[np.argsort(row_of_piece[longest_first], kind="stable")]
    row_ends = np.concatenate([[0], np.cumsum(np.bincount(row_of_piece))]).astype(np.int64)
    return Packed(row_ends, piece_first[by_row], predictions[by_row].astype(np.int32))


def _pieces(first: np.ndarray, tokens: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """First token and predictions of each piece: documents cut every sequence_length predictions."""
    predictions = tokens - 1
    parts = -(-predictions // sequence_length)
    document = np.repeat(np.arange(len(first)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    offset = part * sequence_length
    return first[document] + offset, np.minimum(predictions[document] - offset, sequence_length)


class _OpenRows:
    """Rows by the room that is left in them; the rows of one room are taken last in, first out."""

    def __init__(self) -> None:
        self._rows: dict[int, np.ndarray] = {}
        self._rooms: list[int] = []

    def add(self, room: int, rows: np.ndarray) -> None:
        if room == 0 or rows.size == 0:
            return
        if room in self._rows:
            rows = np.concatenate([self._rows[room], rows])
        else:
            insort(self._rooms, room)
        self._rows[room] = rows

    def take(self, least: int, wanted: int) -> tuple[int, int, np.ndarray]:
        """From the smallest room of at least `least`: (room, pieces of `least` that fit in one row, rows for `wanted`
        pieces or as many as there are); (0, 0, nothing) where no row has the room."""
        at = bisect_left(self._rooms, least)
        if at == len(self._rooms):
            return 0, 0, np.empty(0, dtype=np.int64)
        room = self._rooms[at]
        each, rows = room // least, self._rows[room]
        used = min(-(-wanted // each), len(rows))
        taken = rows[len(rows) - used :]
        if used == len(rows):
            del self._rows[room], self._rooms[at]
        else:
            self._rows[room] = rows[: len(rows) - used]
        return room, each, taken


def _rows(predictions: np.ndarray, sequence_length: int) -> np.ndarray:
    """int64 [pieces]: the row of each piece; `predictions` must not increase.

    Best fit puts a piece into the fullest row that has room. For equal pieces that means: go on in the same row until
    it is full, then the next row of the same room, so a whole group of equal pieces is placed by arithmetic.
    """
    row_of_piece = np.empty(len(predictions), dtype=np.int64)
    open_rows = _OpenRows()
    rows = 0
    sizes, starts = np.unique(-predictions, return_index=True)
    ends = np.append(starts[1:], len(predictions))
    for size, at, end in zip((-sizes).tolist(), starts.tolist(), ends.tolist(), strict=True):
        while at < end:
            room, each, taken = open_rows.take(size, end - at)
            if not each:
                room, each = sequence_length, sequence_length // size
                taken = np.arange(rows, rows + -(-(end - at) // each))
                rows += len(taken)
            placed = min(end - at, each * len(taken))
            row_of_piece[at : at + placed] = np.repeat(taken, each)[:placed]
            whole, rest = divmod(placed, each)
            open_rows.add(room - each * size, taken[:whole])
            if rest:
                open_rows.add(room - rest * size, taken[whole:])
            at += placed
    return row_of_piece
