"""Which text a vocabulary is learned from: of each source and variant a bounded share, spread over all of it by hash.

In: files of documents, read once. Out: texts by portion. What is held at any time is what is chosen so far, so memory
does not grow with the input; the same documents in another order or in other files give the same choice.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from typing import NamedTuple

from megadec.common.errors import ConfigError, suggest
from megadec.common.log import progress
from megadec.corpus.clean.variant import to_variant
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of, map_in_order

Kind = tuple[str, str, bool]
"""Source, variant, whether held out."""
_MILLIONS = {"": 1, "K": 1_000, "M": 1_000_000}
_PORTION = re.compile(
    r"(?P<source>[^/>=@]+)(?:/(?P<variant>[\w-]+))?(?:>(?P<target>[\w-]+))?=(?P<weight>\d+)(?:@(?P<size>\d+)(?P<unit>[KM]?))?"
)


class Chosen(NamedTuple):
    """A text in a portion's reservoir; the smallest heap item is the one with the largest hash, the first to go."""

    rank: int
    text: str
    variant: str


@dataclass
class Portion:
    """One entry of `sample`, read, and the text of it: what was there and what was taken.

    `limit` is in characters; None: the options' own. Of the documents that fit, those with the smallest hashes are
    taken, as many as it takes to reach the limit.
    """

    source: str
    variant: str = ""
    target: str = ""
    weight: int = 1
    limit: int | None = None
    found_characters: int = 0
    texts: list[str] = field(default_factory=list)
    _heap: list[Chosen] = field(default_factory=list)
    _held: int = 0

    def fits(self, source: str, variant: str) -> bool:
        """Whether documents of this source and variant belong to it."""
        return fnmatchcase(source, self.source) and self.variant in ("", variant)

    def offer(self, rank: int, text: str, variant: str) -> None:
        """Count a document, and hold its text while it is among the chosen. rank: its hash."""
        self.found_characters += len(text)
        if self.weight:
            heappush(self._heap, Chosen(-rank, text, variant))
            self._held += len(text)
            # The largest hashes go while the others alone reach the limit.
            while self._held - len(self._heap[0].text) >= (self.limit or 0):
                self._held -= len(heappop(self._heap).text)

    def take(self) -> list[str]:
        """Make `texts` of what is held, converted, in the order of the hashes."""
        chosen = sorted(self._heap, reverse=True)
        self._heap, self._held = [], 0
        self.texts = [to_variant(one.text, one.variant, self.target) for one in chosen]
        return self.texts


def read_portion(text: str) -> Portion:
    """`wiki/zh-Hans>zh-TW=3@2M` as a Portion. Raises ConfigError."""
    match = _PORTION.fullmatch(text)
    if not match:
        raise ConfigError(f"sample={text!r}: not SOURCE=WEIGHT or SOURCE/VARIANT>TARGET=WEIGHT@CHARACTERS (3M, 500K)")
    source, variant, target, weight, size, unit = match.groups(default="")
    return Portion(source, variant, target, int(weight), int(size) * _MILLIONS[unit] if size else None)


def choose_texts(
    paths: Sequence[Path], asked: Sequence[Portion], *, held_out_fraction: float, limit: int, workers: int = 1
) -> list[Portion]:
    """The portions that have texts: those asked for, and one for each source that none of them takes as it is.

    limit: the characters of a portion that names none; what is held reaches over a limit by one document at most.
    Raises ConfigError for a portion that no document belongs to and where nothing is left, InputError for files.
    """
    portions = [*(replace(portion, limit=portion.limit or limit) for portion in asked)]
    others: dict[str, Portion] = {}
    fitting: dict[tuple[str, str], list[Portion]] = {}
    documents = 0
    waiting: deque[list[Document]] = deque()  # chunks that are being hashed

    def sent() -> Iterator[list[Document]]:
        for chunk in chunks_of(progress(read_documents(paths), description="choose text", unit="doc")):
            waiting.append(chunk)
            yield chunk

    with closing(map_in_order(partial(_hashed, held_out_fraction), sent(), workers)) as hashed:
        for ranks in hashed:
            chunk = waiting.popleft()
            documents += len(chunk)
            for document, rank in zip(chunk, ranks, strict=True):
                kind = (document.source, document.variant)
                if kind not in fitting:
                    own = others.setdefault(document.source, Portion(document.source, limit=limit))
                    fitting[kind] = _portions_of(*kind, [*portions, own])
                if rank is not None:
                    text = full_text(document)
                    for portion in fitting[kind]:
                        portion.offer(rank, text, document.variant)
    _check_found(portions, sorted(others))
    taken = [portion for portion in [*portions, *(others[name] for name in sorted(others))] if portion.take()]
    if not taken:
        raise ConfigError(f"no text to learn from: {documents} documents read, sample leaves none of them")
    return taken


def _hashed(held_out_fraction: float, documents: list[Document]) -> list[int | None]:
    """Of each document the number by which it is chosen, None where it is held out; in any process."""
    digests = [digest_of(full_text(document)) for document in documents]
    return [
        None if is_held_out(digest, held_out_fraction) else int.from_bytes(digest[8:16], "big") for digest in digests
    ]


def _portions_of(source: str, variant: str, portions: Sequence[Portion]) -> list[Portion]:
    """Where the text of such documents goes: the first portion that takes it as it is, and all that convert it."""
    fitting = [portion for portion in portions if portion.fits(source, variant)]
    plain = [portion for portion in fitting if not portion.target]
    return plain[:1] + [portion for portion in fitting if portion.target]


def _check_found(asked: Sequence[Portion], known: Sequence[str]) -> None:
    for portion in asked:
        name = portion.source
        if portion.found_characters or not portion.weight:
            continue
        if any(fnmatchcase(source, name) for source in known):
            found = "none of its documents is of that variant or to be learned"
            raise ConfigError(f"sample={name}/{portion.variant}: {found}")
        raise ConfigError(f"sample={name}: no such documents; there are {', '.join(known)}{suggest(name, known)}")
