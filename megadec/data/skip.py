"""Documents that a run leaves out, by their ids.

In: open data sets and ids. Out: where the documents lie, and batches in which they have no weight in the loss. A window
keeps its place and its other documents, so the order of the data, and every checkpoint, stays as it is; attention does
not cross documents, so the others learn what they would learn. An index holds no ids, so the documents.json of every
block are read at each start: about 8 million documents a second for one id, one million for ten or more; and the places
of skipped documents are computed as before, for nothing.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from megadec.common.errors import ConfigError
from megadec.data.index import DataSet
from megadec.data.windows import WindowPlan

SHOWN_IDS = 5
# From so many on one pass that takes out all ids is faster than a pass for each.
MANY_IDS = 10
_ID = re.compile(rb'"id":("(?:[^"\\]|\\.)*+")')


class SkippedDocuments:
    """Spans of tokens of one data set, (first, stop) by first token."""

    def __init__(self, spans: Collection[tuple[int, int]]) -> None:
        ordered = sorted(set(spans))
        self.starts = [first for first, _ in ordered]
        self.stops = [stop for _, stop in ordered]

    def between(self, first: int, stop: int) -> list[tuple[int, int]]:
        """The parts of the spans among tokens first, ..., stop - 1."""
        inside = range(bisect_right(self.stops, first), bisect_left(self.starts, stop))
        return [(max(self.starts[n], first), min(self.stops[n], stop)) for n in inside]


def read_ids(ids: Sequence[str], file: str | None) -> tuple[str, ...]:
    """The ids of the list and of the file (UTF-8, one a line), each once, sorted. Raises ConfigError."""
    lines: list[str] = []
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"data.skip_documents_file={file} cannot be read as UTF-8 text: {error}") from error
    return tuple(sorted({one for one in (*ids, *(line.strip() for line in lines)) if one}))


def find_documents(sets: Sequence[DataSet], ids: Collection[str]) -> list[SkippedDocuments]:
    """Where the documents with these ids lie in each set; one that stands in several sets is found in all.

    Raises ConfigError for an id that stands in none, unless a shard is left out, where it may stand.
    """
    if not ids:
        return [SkippedDocuments(()) for _ in sets]
    wanted, missing = set(ids), set(ids)
    found = []
    for data in sets:
        spans = []
        for block in _blocks_with(data, wanted):
            first, stop = int(data.block_starts[block]), int(data.block_starts[block + 1])
            for span in data.documents_between(first, stop):
                if span.id in wanted:
                    spans.append((span.first_token, span.first_token + span.tokens))
                    missing.discard(span.id)
        found.append(SkippedDocuments(spans))
    if missing and not any(data.skipped for data in sets):
        shown, documents = sorted(missing), sum(data.documents for data in sets)
        raise ConfigError(
            f"data.skip_documents: {', '.join(map(repr, shown[:SHOWN_IDS]))} ({len(shown)} of {len(wanted)} ids)"
            f" stand in none of the {documents:,} documents of {', '.join(str(data.folder) for data in sets)}:"
            " tools/show.py shows the ids of a window, and metrics.jsonl those of a bad step (lines of kind guard)"
        )
    return found


def _blocks_with(data: DataSet, ids: Collection[str]) -> list[int]:
    """The blocks in whose table one of these ids stands: a search in bytes, faster than parsing."""
    keys = {json.dumps(one, ensure_ascii=False).encode("utf-8") for one in ids}

    def holds_one(table: bytes) -> bool:
        if len(keys) < MANY_IDS:
            return any(key in table for key in keys)
        return not keys.isdisjoint(_ID.findall(table))

    whole = (block for block in range(data.blocks) if not data.is_lost_block(block))
    return [block for block in whole if holds_one(data.documents_table(block))]


def leave_out(
    weights_BS: Tensor, rows: Sequence[tuple[WindowPlan, int] | None], skipped: Sequence[SkippedDocuments]
) -> None:
    """Take the weight in place from every prediction whose target belongs to a skipped document.

    weights_BS: float32, of these (plan, window) rows, None for a row that is all padding; skipped: of the set of each.
    """
    for row, (place, spans) in enumerate(zip(rows, skipped, strict=True)):
        if place is None or not spans.starts:
            continue
        plan, window = place
        at = 0
        for first, predictions in plan.pieces(window):
            # The prediction at place p of a piece has the token first + p + 1 as its target.
            for begin, stop in spans.between(first + 1, first + predictions + 1):
                weights_BS[row, at + begin - first - 1 : at + stop - first - 1] = 0.0
            at += predictions
