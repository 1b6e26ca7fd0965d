"""Leaves documents out of training by their ids: their predictions have no weight in the loss.

A window keeps its place and its other documents, so the order and every checkpoint stay as they are. Ids are looked up
in documents.json at each start: about 8 million documents a second for one id, one million for ten or more.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from megadec.common.errors import ConfigError
from megadec.data.dataset import DataSet
from megadec.data.windows import WindowPlan

if TYPE_CHECKING:  # a run's request is checked without torch
    from torch import Tensor

SHOWN_IDS = 5


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


def find_skipped(sets: Sequence[DataSet], ids: Collection[str]) -> list[SkippedDocuments]:
    """Where the documents with these ids lie in each set; one that stands in several sets is found in all.

    Raises ConfigError for an id that stands in none, unless a shard is left out, where it may stand.
    """
    found = [data.find_documents(ids) if ids else {} for data in sets]
    missing = sorted(one for one in set(ids) if not any(spans[one] for spans in found))
    if missing and not any(data.skipped for data in sets):
        documents = sum(data.documents for data in sets)
        raise ConfigError(
            f"data.skip_documents: {', '.join(map(repr, missing[:SHOWN_IDS]))} ({len(missing)} of {len(set(ids))} ids)"
            f" stand in none of the {documents:,} documents of {', '.join(data.folder for data in sets)}:"
            " tools/show.py shows the ids of a window, and metrics.jsonl those of a bad step (lines of kind guard)"
        )
    return [
        SkippedDocuments([(s.first_token, s.first_token + s.tokens) for spans in one.values() for s in spans])
        for one in found
    ]


def leave_out(
    weights_BS: "Tensor", windows: Sequence[tuple[WindowPlan, int] | None], skipped: Sequence[SkippedDocuments]
) -> None:
    """Take the weight in place from every prediction whose target belongs to a skipped document.

    weights_BS: float32, of these (plan, window) pairs, None for a sequence of padding; skipped: of the set of each.
    """
    for row, (place, spans) in enumerate(zip(windows, skipped, strict=True)):
        if place is None or not spans.starts:
            continue
        plan, window = place
        at = 0
        for first, predictions in plan.pieces(window):
            # The prediction at place p of a piece has the token first + p + 1 as its target.
            for begin, stop in spans.between(first + 1, first + predictions + 1):
                weights_BS[row, at + begin - first - 1 : at + stop - first - 1] = 0.0
            at += predictions
