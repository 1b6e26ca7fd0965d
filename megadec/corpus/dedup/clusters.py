"""Clusters of near duplicates, and which text of each stays: every one that goes is like one that stays.

A cluster is linked by pairs, so its ends may differ (a law of 1979 and of 2018); then more than one of it stays.
"""

from dataclasses import dataclass

import numpy as np

from megadec.corpus.dedup.near import PERMUTATIONS, Signatures, bands_of, equal_values, matches_at

# How many texts each one is compared with in a bucket whose texts are not alike, and in a cluster of which many stay.
MOST_LEADERS = 256
MOST_KEPT = 4096
# How many signatures are compared in one step, and how many of buckets are held in memory (64 MiB).
ROWS_AT_ONCE = 1 << 13
ROWS_HELD = 1 << 17
NONE = -1


@dataclass
class Clusters:
    """By row: the first row of its cluster (itself where it is alone), the row that it goes for (or -1), and how many
    values of their signatures are equal."""

    roots: np.ndarray
    stands_for: np.ndarray
    matches: np.ndarray


def cluster(signatures: Signatures, ranks: np.ndarray, threshold: float) -> Clusters:
    """Cluster the rows of a file of signatures.

    ranks: which row is preferred, 0 first; a row that takes no part has -1. threshold: the least estimated Jaccard
    similarity. Takes time in proportion to the rows that have a near duplicate, and one sort of all rows a band.
    """
    least = matches_at(threshold)
    by_rank = np.flatnonzero(ranks >= 0).astype(np.int32)
    by_rank = by_rank[np.argsort(ranks[by_rank])]
    parents = np.arange(signatures.rows, dtype=np.int32)
    bands, rows_of_band = bands_of(threshold)
    for band in range(bands):
        rows, keys = _shared(by_rank, signatures.band(band, rows_of_band)[by_rank])
        _join_buckets(signatures, rows, keys, parents, least)
    _shorten(parents)
    return _choose(signatures, by_rank, parents, least)


def _shared(rows: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows whose key another one has too, by key and in their order, and the keys."""
    order = np.argsort(keys, kind="stable").astype(np.int32)
    keys = keys[order]
    same = keys[1:] == keys[:-1]
    shared = np.zeros(len(keys), bool)
    shared[1:] = same
    shared[:-1] |= same
    return rows[order[shared]], keys[shared]


def _join_buckets(signatures: Signatures, rows: np.ndarray, keys: np.ndarray, parents: np.ndarray, least: int) -> None:
    """Join the rows of equal keys that are alike: in each bucket all are compared with its first, those that are not
    like it with the first of the rest, and so on."""
    _shorten(parents)
    held: np.ndarray | None = None  # the signatures of the rows, once these are few, and the place of each row in it
    places = np.arange(len(rows))
    for _ in range(MOST_LEADERS):
        new = np.ones(len(keys), bool)
        new[1:] = keys[1:] != keys[:-1]
        starts = np.flatnonzero(new)
        leaders = np.repeat(starts, np.diff(np.append(starts, len(keys))))
        members = np.flatnonzero(~new)
        if not len(members):
            return
        if held is None and len(rows) <= ROWS_HELD:
            held, places = signatures.at(rows), np.arange(len(rows))
        roots = _roots(parents, rows)
        alike = roots[leaders[members]] == roots[members]
        for open_pairs in np.array_split(np.flatnonzero(~alike), len(members) // ROWS_AT_ONCE + 1):
            left, right = leaders[members[open_pairs]], members[open_pairs]
            one, other = (signatures.at(rows[at]) if held is None else held[places[at]] for at in (left, right))
            joined = equal_values(one, other) >= least
            _join(parents, rows[left[joined]], rows[right[joined]])
            alike[open_pairs[joined]] = True
        rest = members[~alike]
        rows, keys, places = rows[rest], keys[rest], places[rest]


def _join(parents: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    for pair in zip(left.tolist(), right.tolist(), strict=True):
        one, other = (_root(parents, row) for row in pair)
        parents[max(one, other)] = min(one, other)


def _root(parents: np.ndarray, row: int) -> int:
    while (parent := int(parents[row])) != row:
        parents[row] = parents[parent]
        row = parent
    return row


def _roots(parents: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The roots of these rows."""
    while not np.array_equal(above := parents[rows], rows):
        rows = above
    return rows


def _shorten(parents: np.ndarray) -> None:
    """Let `parents` point straight to the root of every row."""
    while not np.array_equal(above := parents[parents], parents):
        parents[:] = above


def _choose(signatures: Signatures, by_rank: np.ndarray, roots: np.ndarray, least: int) -> Clusters:
    """In each cluster, from the most preferred row on: a row goes if it is like one that stays."""
    found = Clusters(roots, np.full(len(roots), NONE, np.int32), np.zeros(len(roots), np.uint16))
    members = by_rank[np.argsort(roots[by_rank], kind="stable")]
    new = np.ones(len(members), bool)
    new[1:] = roots[members[1:]] != roots[members[:-1]]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(members)))
    for start, size in zip(starts[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        _choose_in(signatures, members[start : start + size], found, least)
    return found


def _choose_in(signatures: Signatures, members: np.ndarray, found: Clusters, least: int) -> None:
    kept = np.empty((min(len(members), MOST_KEPT), PERMUTATIONS), np.uint8)
    kept_rows: list[int] = []
    for row in members.tolist():
        signature = signatures.at(np.array([row]))[0]
        equal = equal_values(kept[: len(kept_rows)], signature)
        best = int(equal.argmax()) if len(equal) else 0
        if len(equal) and equal[best] >= least:
            found.stands_for[row], found.matches[row] = kept_rows[best], equal[best]
        elif len(kept_rows) < MOST_KEPT:
            kept[len(kept_rows)] = signature
            kept_rows.append(row)
