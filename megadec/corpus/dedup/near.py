"""Near duplicates: MinHash signatures over character shingles, banded (LSH), compared band by band.

Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3. One byte is kept of each of
512 minima (b-bit minwise hashing, Li and Koenig 2010): in the same space a similarity of 0.8 is estimated to 0.018,
where 128 whole minima give 0.035.
"""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import numpy as np
from rensa import RMinHash

PERMUTATIONS = 512
SHINGLE_CHARACTERS = 5
SIGNATURE_BYTES = PERMUTATIONS
_SEED = 1
_ALIKE_BY_CHANCE = 1 / 256
# The least share of pairs at the threshold that have to meet in a band; each band costs a sort.
_RECALL = 0.99
MOST_BANDS = 32
_ROWS_AT_ONCE = 1 << 13
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIXERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def signature_of(letters: str) -> bytes:
    """The MinHash signature of the set of 5-character shingles, a byte a permutation; `letters` has at least 5."""
    hashes = ngram_hashes(code_points(letters), SHINGLE_CHARACTERS)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, np.array([0, len(hashes)], np.uint64), PERMUTATIONS, _SEED
    )
    return np.array(matrix.to_rows()[0], np.uint32).astype(np.uint8).tobytes()


def code_points(text: str) -> np.ndarray:
    """The characters of a text as uint64."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)


def ngram_hashes(codes: np.ndarray, characters: int) -> np.ndarray:
    """uint64 hashes of the n-grams of so many code points, in order; none for a shorter text."""
    # A polynomial of the characters: those of 2, 4, 8 ... are made of halves, and the n-gram's of these.
    count = max(0, len(codes) - characters + 1)
    hashes, part, length, done = np.zeros(count, np.uint64), codes, 1, 0
    while count and length <= characters:
        if characters & length:
            hashes *= np.uint64(pow(int(_MULTIPLIER), length, 1 << 64))
            hashes += part[done : done + count]
            done += length
        if 2 * length <= characters:
            part = part[:-length] * np.uint64(pow(int(_MULTIPLIER), length, 1 << 64)) + part[length:]
        length *= 2
    return _mixed(hashes)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the input (splitmix64)."""
    hashes ^= hashes >> np.uint64(30)
    hashes *= _MIXERS[0]
    hashes ^= hashes >> np.uint64(27)
    hashes *= _MIXERS[1]
    hashes ^= hashes >> np.uint64(31)
    return hashes


def bands_of(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """(bands, rows): the longest of at most 32 bands in which 99 of 100 pairs at the threshold meet."""
    for rows in range(permutations, 0, -1):
        bands = min(MOST_BANDS, permutations // rows)
        if 1 - (1 - threshold**rows) ** bands >= _RECALL:
            return bands, rows
    raise AssertionError(threshold)


def similarity(matches: np.ndarray) -> np.ndarray:
    """The estimated Jaccard similarity of two texts whose signatures have so many equal values."""
    return np.maximum(0, (matches / PERMUTATIONS - _ALIKE_BY_CHANCE) / (1 - _ALIKE_BY_CHANCE))


def matches_at(threshold: float) -> int:
    """The least number of equal values of two signatures whose estimated similarity reaches the threshold."""
    return ceil(PERMUTATIONS * (threshold * (1 - _ALIKE_BY_CHANCE) + _ALIKE_BY_CHANCE) - 1e-6)


def equal_values(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """How many values are equal in each row of two arrays of signatures, (rows, 512) uint8; uint16. One of them may be
    a single signature."""
    bits = np.packbits(left == right, axis=1).view(np.uint64)
    counts: np.ndarray = np.bitwise_count(bits).sum(axis=1, dtype=np.uint16)
    return counts


class Signatures:
    """The file of signatures, one a row. It is read row by row: pages of a map would count as this process's memory."""

    def __init__(self, path: Path) -> None:
        self.rows = path.stat().st_size // SIGNATURE_BYTES
        self._file = os.open(path, os.O_RDONLY)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def band(self, band: int, rows: int) -> np.ndarray:
        """A uint64 hash of columns [band * rows, (band + 1) * rows) of every signature."""
        keys = np.empty(self.rows, np.uint64)
        columns = slice(band * rows, (band + 1) * rows)
        for start, part in self._pieces():
            hashes = np.zeros(len(part), np.uint64)
            for column in part[:, columns].T:
                hashes *= _MULTIPLIER
                hashes += column
                _mixed(hashes)
            keys[start : start + len(part)] = hashes
        return keys

    def at(self, rows: np.ndarray) -> np.ndarray:
        """These signatures, (rows, 512) uint8."""
        found = [os.pread(self._file, SIGNATURE_BYTES, row * SIGNATURE_BYTES) for row in rows.tolist()]
        return np.frombuffer(b"".join(found), np.uint8).reshape(-1, PERMUTATIONS)

    def _pieces(self) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, self.rows, _ROWS_AT_ONCE):
            data = os.pread(self._file, _ROWS_AT_ONCE * SIGNATURE_BYTES, start * SIGNATURE_BYTES)
            yield start, np.frombuffer(data, np.uint8).reshape(-1, PERMUTATIONS)
