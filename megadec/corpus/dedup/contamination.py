"""Which documents hold the texts of evaluation sets: overlap of 13-character n-grams, looked up in a sorted file.

Texts are compared by their letters and digits in Simplified characters. The index is built once and mapped by every
worker. 13 is the n-gram of Brown et al. 2020 (appendix C), in characters where theirs are words.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from megadec.common.files import storage_errors, write_json
from megadec.corpus.clean.text import clean_text
from megadec.corpus.clean.variant import simplified_codes
from megadec.corpus.dedup.evaluation_sets import evaluation_texts
from megadec.corpus.dedup.exact import letters_of
from megadec.corpus.dedup.near import code_points, ngram_hashes

NGRAM_CHARACTERS = 13
# Whatever the fraction, a document holds so many n-grams of a text or all: 20 characters in a row, or the whole of a
# shorter text. A name of a body or a law is hardly longer.
HELD_NGRAMS = 8
# A text of fewer than 13 characters is held where it is a whole line; still shorter, where it is the whole document.
LINE_CHARACTERS = 8
ITEM_CHARACTERS = 60


@dataclass(frozen=True)
class Held:
    """An evaluation text that a document holds: the set's name and the beginning of the text."""

    set: str
    item: str


def build_index(paths: Sequence[Path], folder: Path, fraction: float) -> None:
    """Write the index of these evaluation sets to a folder: a document with this fraction of a text's n-grams holds it.
    Raises InputError, StorageError.

    Memory: some 50 bytes a character of the sets while it is built; in use 12, and up to 32 for the filter, mapped.
    """
    texts: dict[bytes, tuple[int, str]] = {}
    for number, path in enumerate(paths):
        for text in evaluation_texts(path):
            if letters := letters_of(clean_text(text)):
                shown = " ".join(text.split())[:ITEM_CHARACTERS]
                texts.setdefault(simplified(letters).tobytes(), (number, shown))
    long, short = [np.empty((2, 0), np.uint64)], [np.empty((2, 0), np.uint64)]
    for item, key in enumerate(texts):
        codes = np.frombuffer(key, np.uint64)
        hashes = np.unique(ngram_hashes(codes, min(len(codes), NGRAM_CHARACTERS)))
        kind = short if len(codes) < NGRAM_CHARACTERS else long
        kind.append(np.stack([hashes, np.full_like(hashes, item)]))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, parts in (("long", long), ("short", short)):
            hashes, items = np.concatenate(parts, axis=1)
            order = np.argsort(hashes, kind="stable")
            np.save(folder / f"{name}.hashes.npy", hashes[order])
            np.save(folder / f"{name}.items.npy", items[order].astype(np.uint32))
            np.save(folder / f"{name}.filter.npy", _filter_of(hashes))
        known = {"fraction": fraction, "sets": set_names(paths), "items": list(texts.values())}
        write_json(folder / "items.json", known)


def set_names(paths: Sequence[Path]) -> list[str]:
    """What the sets are called: their files' names, with as many folders as tell them apart."""
    parts = 1
    while len({path.parts[-parts:] for path in paths}) < len({*paths}) and parts < 20:
        parts += 1
    return [Path(*path.parts[-parts:]).as_posix() for path in paths]


def simplified(letters: str) -> np.ndarray:
    """The code points of a text, character by character in Simplified writing."""
    table = simplified_codes()
    codes: np.ndarray = table[np.minimum(code_points(letters), len(table) - 1)]
    return codes


def _filter_of(hashes: np.ndarray) -> np.ndarray:
    """Which beginnings of hashes occur: most n-grams of a document are no more than looked up here."""
    bits = max(10, (16 * len(hashes)).bit_length())
    occurs = np.zeros(1 << bits, bool)
    occurs[hashes >> np.uint64(64 - bits)] = True
    return occurs


class EvaluationIndex:
    """The index that `build_index` wrote; opening it takes no time, and processes share its memory."""

    def __init__(self, folder: Path) -> None:
        known = json.loads((folder / "items.json").read_text(encoding="utf-8"))
        self.sets: list[str] = known["sets"]
        self._items: list[tuple[int, str]] = known["items"]
        self._long, self._short = (
            tuple(_mapped(folder / f"{name}.{part}.npy") for part in ("hashes", "items", "filter"))
            for name in ("long", "short")
        )
        sizes = np.bincount(self._long[1], minlength=len(self._items))
        self._sizes = np.maximum(sizes, 1)
        self._needed = np.maximum(np.ceil(known["fraction"] * sizes), np.minimum(HELD_NGRAMS, sizes))

    def find(self, plain: str, letters: str) -> Held | None:
        """The evaluation text of which a document holds the largest part, if it is enough: by its cleaned text and the
        letters of it."""
        codes = simplified(letters)
        items = _items_of(ngram_hashes(codes, NGRAM_CHARACTERS), *self._long)
        counts = np.bincount(items, minlength=1)
        held = np.flatnonzero((counts > 0) & (counts >= self._needed[: len(counts)]))
        if len(held):
            return self._held(int(held[np.argmax(counts[held] / self._sizes[held])]))
        items = _items_of(self._short_hashes(plain, codes), *self._short)
        return self._held(int(items[0])) if len(items) else None

    def _short_hashes(self, plain: str, codes: np.ndarray) -> np.ndarray:
        """Hashes of the lines that may be a whole evaluation text, and of the document if it is as short."""
        if not len(self._short[0]):
            return np.empty(0, np.uint64)
        lines = (letters_of(line) for line in plain.split("\n") if LINE_CHARACTERS <= len(line) <= ITEM_CHARACTERS)
        texts = [simplified(line) for line in lines if LINE_CHARACTERS <= len(line) < NGRAM_CHARACTERS]
        if 0 < len(codes) < NGRAM_CHARACTERS:
            texts.append(codes)
        return np.concatenate([np.empty(0, np.uint64), *(ngram_hashes(text, len(text)) for text in texts)])

    def _held(self, item: int) -> Held:
        number, text = self._items[item]
        return Held(self.sets[number], text)


def _mapped(path: Path) -> np.ndarray:
    """The array of a file; as a plain array, for indexing a memmap takes ten times as long."""
    array: np.ndarray = np.load(path, mmap_mode="r").view(np.ndarray)
    return array


def _items_of(wanted: np.ndarray, hashes: np.ndarray, items: np.ndarray, occurs: np.ndarray) -> np.ndarray:
    """The items that have one of the wanted hashes, once for each."""
    bits = len(occurs).bit_length() - 1
    wanted = np.unique(wanted[occurs[wanted >> np.uint64(64 - bits)]])
    first, last = (np.searchsorted(hashes, wanted, side) for side in ("left", "right"))
    found = np.flatnonzero(first < last)
    if not len(found):
        return np.empty(0, np.uint32)
    return np.concatenate([items[first[at] : last[at]] for at in found])
