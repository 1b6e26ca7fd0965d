"""Best-fit-decreasing: packs whole documents into sequences of a fixed length with little padding.

All documents of one length are placed at once, in the sequences that the one-by-one rule would choose, so a million
documents take a second or so.
"""

from bisect import bisect_left, insort
from typing import NamedTuple

import numpy as np


class Packed(NamedTuple):
    """Pieces by sequence: sequence r holds pieces sequence_ends[r], ..., sequence_ends[r + 1] - 1 (int64 [sequences +
    1]); first int64 [pieces]: number of the first token, predictions int32 [pieces])."""

    sequence_ends: np.ndarray
    first: np.ndarray
    predictions: np.ndarray


def pack(first: np.ndarray, tokens: np.ndarray, sequence_length: int) -> Packed:
    """Pack documents of `tokens` tokens (int64 [documents], at least 2 each) into sequences of `sequence_length`
    predictions.

    A document of n tokens holds n - 1 predictions. Longer ones are cut into full sequences and a rest. Every prediction
    of every document is in exactly one sequence.
    """
    piece_first, predictions = _pieces(first, tokens, sequence_length)
    longest_first = np.argsort(-predictions, kind="stable")
    sequence_of_piece = np.empty(len(predictions), dtype=np.int64)
    sequence_of_piece[longest_first] = _sequences(predictions[longest_first], sequence_length)
    # Inside a sequence longest first; stable, so equal input gives equal sequences.
    by_sequence = longest_first[np.argsort(sequence_of_piece[longest_first], kind="stable")]
    sequence_ends = np.concatenate([[0], np.cumsum(np.bincount(sequence_of_piece))]).astype(np.int64)
    return Packed(sequence_ends, piece_first[by_sequence], predictions[by_sequence].astype(np.int32))


def _pieces(first: np.ndarray, tokens: np.ndarray, sequence_length: int) -> tuple[np.ndarray, np.ndarray]:
    """First token and predictions of each piece: documents cut every sequence_length predictions."""
    predictions = tokens - 1
    parts = -(-predictions // sequence_length)
    document = np.repeat(np.arange(len(first)), parts)
    part = np.arange(len(document)) - np.repeat(np.cumsum(parts) - parts, parts)
    offset = part * sequence_length
    return first[document] + offset, np.minimum(predictions[document] - offset, sequence_length)


class _OpenSequences:
    """Sequences by the room that is left in them; the sequences of one room are taken last in, first out."""

    def __init__(self) -> None:
        self._sequences: dict[int, np.ndarray] = {}
        self._rooms: list[int] = []

    def add(self, room: int, sequences: np.ndarray) -> None:
        if room == 0 or sequences.size == 0:
            return
        if room in self._sequences:
            sequences = np.concatenate([self._sequences[room], sequences])
        else:
            insort(self._rooms, room)
        self._sequences[room] = sequences

    def take(self, least: int, wanted: int) -> tuple[int, int, np.ndarray]:
        """From the smallest room of at least `least`: (room, pieces of `least` that fit in one sequence, sequences for
        `wanted` pieces or as many as there are); (0, 0, nothing) where no sequence has the room."""
        at = bisect_left(self._rooms, least)
        if at == len(self._rooms):
            return 0, 0, np.empty(0, dtype=np.int64)
        room = self._rooms[at]
        each, sequences = room // least, self._sequences[room]
        used = min(-(-wanted // each), len(sequences))
        taken = sequences[len(sequences) - used :]
        if used == len(sequences):
            del self._sequences[room], self._rooms[at]
        else:
            self._sequences[room] = sequences[: len(sequences) - used]
        return room, each, taken


def _sequences(predictions: np.ndarray, sequence_length: int) -> np.ndarray:
    """int64 [pieces]: the sequence of each piece; `predictions` must not increase.

    Best fit puts a piece into the fullest sequence that has room. For equal pieces that means: go on in the same
    sequence until it is full, then the next sequence of the same room, so a whole group of equal pieces is placed by
    arithmetic.
    """
    sequence_of_piece = np.empty(len(predictions), dtype=np.int64)
    open_sequences = _OpenSequences()
    sequences = 0
    sizes, starts = np.unique(-predictions, return_index=True)
    ends = np.append(starts[1:], len(predictions))
    for size, at, end in zip((-sizes).tolist(), starts.tolist(), ends.tolist(), strict=True):
        while at < end:
            room, each, taken = open_sequences.take(size, end - at)
            if not each:
                room, each = sequence_length, sequence_length // size
                taken = np.arange(sequences, sequences + -(-(end - at) // each))
                sequences += len(taken)
            placed = min(end - at, each * len(taken))
            sequence_of_piece[at : at + placed] = np.repeat(taken, each)[:placed]
            whole, rest = divmod(placed, each)
            open_sequences.add(room - each * size, taken[:whole])
            if rest:
                open_sequences.add(room - rest * size, taken[whole:])
            at += placed
    return sequence_of_piece
