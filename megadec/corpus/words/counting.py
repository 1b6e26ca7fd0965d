"""Counts of words and n-grams by source, in bounded memory.

A table that grows past its limit forgets its rarest entries and remembers how much any count may be short of since
(lossy counting, Manku and Motwani, VLDB 2002). Chunks are counted in any process and added up in order, so that the
result is the same for any number of workers.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from megadec.corpus.document import Document, full_text
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.words.segment import SegmentOptions, is_word

# A table forgets when it is so many times its limit, so that it does not do so at every word.
SLACK = 2


@dataclass
class BoundedCounts:
    """Counts of at most `2 * limit` entries.

    short: the most that any count, and so also one that is not there, may be below the true one; 0 while nothing was
    forgotten. forgotten: entries that were dropped, one that came again as often as it was.
    """

    limit: int
    counts: Counter[str] = field(default_factory=Counter)
    total: int = 0
    short: int = 0
    forgotten: int = 0

    def add(self, more: Mapping[str, int]) -> None:
        """Add counts, and forget the rarest entries where there are too many."""
        self.counts.update(more)
        self.total += sum(more.values())
        if len(self.counts) <= SLACK * self.limit:
            return
        # All that are as rare as the first that has no room go, so that their order does not matter.
        floor = sorted(self.counts.values(), reverse=True)[self.limit]
        before = len(self.counts)
        self.counts = Counter({entry: count for entry, count in self.counts.items() if count > floor})
        self.forgotten += before - len(self.counts)
        self.short += floor

    def ranked(self) -> list[tuple[str, int]]:
        """Entries, the most frequent first, equal ones by their text."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass
class SourceCounts:
    """What is counted of one source.

    grams: by n, n-grams of words with blanks between them; grams[1] are the words. in_documents: how many documents
    hold a word. stopped: stop words, which are not counted.
    """

    grams: dict[int, BoundedCounts]
    in_documents: BoundedCounts
    documents: int = 0
    characters: int = 0
    stopped: int = 0

    @property
    def words(self) -> BoundedCounts:
        return self.grams[1]


@dataclass(frozen=True)
class Counting:
    """How a chunk is counted: by which field of a document, n-grams up to which n, without which words."""

    segment: SegmentOptions
    by: str
    longest: int
    stop_words: frozenset[str]


# documents, characters, stop words left out, n-grams by n, documents of each word
_Part = tuple[int, int, int, list[Counter[str]], Counter[str]]


def count_words(documents: Iterable[Document], counting: Counting, limit: int, workers: int) -> dict[str, SourceCounts]:
    """The counts of each source (or label, or variant: `counting.by`), in the order in which they first come."""
    found: dict[str, SourceCounts] = {}
    for parts in map_in_order(partial(_count_chunk, counting), chunks_of(documents), workers):
        for name, (number, characters, stopped, grams, in_documents) in parts.items():
            if name not in found:
                tables = {n: BoundedCounts(limit) for n in range(1, counting.longest + 1)}
                found[name] = SourceCounts(tables, BoundedCounts(limit))
            source = found[name]
            source.documents += number
            source.characters += characters
            source.stopped += stopped
            for n, counts in enumerate(grams, 1):
                source.grams[n].add(counts)
            source.in_documents.add(in_documents)
    return found


def _count_chunk(counting: Counting, documents: Sequence[Document]) -> dict[str, _Part]:
    """The counts of some documents by source; in any process."""
    cut = counting.segment.open_segmenter().cut
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for document in documents:
        groups[getattr(document, counting.by)].append(full_text(document))
    return {name: _count_texts(texts, cut, counting) for name, texts in groups.items()}


def _count_texts(texts: Sequence[str], cut: Callable[[str], list[str]], counting: Counting) -> _Part:
    grams = [Counter[str]() for _ in range(counting.longest)]
    in_documents = Counter[str]()
    stopped = 0
    for text in texts:
        here: set[str] = set()
        words = cut(text)
        stopped += sum(word in counting.stop_words for word in words) if counting.stop_words else 0
        for run in _runs(words, counting.stop_words):
            here.update(run)
            for n, counts in enumerate(grams, 1):
                counts.update(run if n == 1 else map(" ".join, zip(*(run[i:] for i in range(n)), strict=False)))
        in_documents.update(here)
    return len(texts), sum(map(len, texts)), stopped, grams, in_documents


def _runs(words: Sequence[str], stop_words: frozenset[str]) -> Iterator[list[str]]:
    """Words that follow each other with no punctuation, newline or stop word between; a blank does not part them."""
    run: list[str] = []
    for word in words:
        if is_word(word) and word not in stop_words:
            run.append(word)
        elif run and word != " ":
            yield run
            run = []
    if run:
        yield run
