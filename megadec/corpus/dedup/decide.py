"""Which documents of a run are duplicates: small numbers about all of them, decided in order in one process.

The decisions depend on the documents and their order alone, not on how the input was cut or who made the fingerprints.
"""

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.files import storage_errors, whole_file
from megadec.corpus.dedup.clusters import NONE, cluster
from megadec.corpus.dedup.exact import DIGEST_BYTES
from megadec.corpus.dedup.fingerprint import Fingerprint
from megadec.corpus.dedup.near import PERMUTATIONS, Signatures, similarity
from megadec.corpus.dedup.options import DedupOptions

DUPLICATE, NEAR_DUPLICATE, EXCLUDED, CONTAMINATED = "duplicate", "near_duplicate", "excluded", "contaminated"
NO_CLUSTER = -1
_CODES = {"": 0, DUPLICATE: 1, NEAR_DUPLICATE: 2, EXCLUDED: 3}  # an evaluation set has the next free one
CLUSTERS = pa.schema(
    [
        ("cluster", pa.int32()), ("id", pa.string()), ("source", pa.string()), ("title", pa.string()),
        ("kept", pa.bool_()), ("similarity", pa.float32()),
    ],
    metadata={b"megadec": b"duplicates/1"},
)  # fmt: skip
_ROWS_AT_ONCE = 4096


@dataclass
class Decisions:
    """What becomes of each document, by its place in the order.

    `reasons[codes[i]]` is empty for a document that stays. `clusters[i]` is the number of its cluster of duplicates, or
    -1; `instead[i]` the document that stays for a duplicate (-1: none, or one of an earlier run), and `similarities[i]`
    their estimated Jaccard similarity (1 for an exact duplicate and for what stays). `excluded`: how many documents go
    for each file of excluded texts; `evaluation_items`: how many hold which text of each evaluation set.
    """

    reasons: Sequence[str]
    codes: np.ndarray
    clusters: np.ndarray
    similarities: np.ndarray
    instead: np.ndarray
    excluded: dict[str, int] = field(default_factory=dict)
    evaluation_items: dict[str, Counter[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def cluster_count(self) -> int:
        """How many clusters of duplicates there are."""
        return int(self.clusters.max(initial=NO_CLUSTER)) + 1

    def reason(self, index: int) -> str:
        """Why document `index` is dropped: duplicate, near_duplicate, excluded, contaminated:SET; empty if it stays."""
        return self.reasons[int(self.codes[index])]

    def cluster(self, index: int) -> int:
        """The number of its cluster of duplicates, or -1."""
        return int(self.clusters[index])


def decide(
    fingerprints: Iterable[Fingerprint],
    options: DedupOptions,
    work: Path,
    *,
    excluded: Mapping[str, Iterable[bytes]] | None = None,
    seen: Iterable[Fingerprint] = (),
) -> Decisions:
    """Decide about the documents with these fingerprints, in their order.

    work: a folder, in which this call needs 512 bytes a document for a while. excluded: digests of texts that must not
    be learned, by the name of their file. seen: documents of earlier runs; what is like them goes. Memory: some 100
    bytes a document. Raises StorageError.
    """
    with storage_errors(work), tempfile.TemporaryDirectory(dir=work, prefix="signatures-") as folder:
        path = Path(folder) / "signatures"
        with open(path, "wb") as file:
            table = _Table(file)
            for name, digests in (excluded or {}).items():
                table.digests += b"".join(digests)
                table.excluded[name] = table.rows
            for print_ in seen:
                table.add(print_)
            table.before = table.rows
            for print_ in fingerprints:
                table.add(print_)
        return table.decide(options, path)


class _Table:
    """One row for each excluded text, then for each document of earlier runs, then for each of this run."""

    def __init__(self, file: IO[bytes]) -> None:
        """file: where signatures go."""
        self.file = file
        self.digests = bytearray()
        self.excluded: dict[str, int] = {}  # the row behind those of each file of excluded texts
        self.before = 0  # the first row of this run
        self.signed, self.lengths, self.dates = bytearray(), bytearray(), bytearray()  # rows with a signature; of these
        self.contaminated = bytearray()  # row, code
        self.reasons = list(_CODES)
        self.items: dict[str, Counter[str]] = {}

    @property
    def rows(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    def add(self, print_: Fingerprint) -> None:
        row = self.rows
        self.digests += print_.digest
        if print_.evaluation_set:
            reason = f"{CONTAMINATED}:{print_.evaluation_set}"
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.contaminated += np.array([row, self.reasons.index(reason)], np.int64).tobytes()
            self.items.setdefault(print_.evaluation_set, Counter())[print_.evaluation_item] += 1
        elif print_.signature:
            self.file.write(print_.signature)
            self.signed += row.to_bytes(4, "little")
            self.lengths += min(print_.characters, 2**31).to_bytes(4, "little")
            self.dates += int(print_.date.replace("-", "") or 0).to_bytes(4, "little")

    def decide(self, options: DedupOptions, signatures: Path) -> Decisions:
        first = first_of(self.digests)
        self.digests = bytearray()
        ends = np.array(list(self.excluded.values()), np.int64)
        never = first < (ends[-1] if len(ends) else 0)
        codes = np.zeros(len(first), np.uint16)
        codes[first != np.arange(len(first))] = _CODES[DUPLICATE]
        for row, code in np.frombuffer(self.contaminated, np.int64).reshape(-1, 2).tolist():
            codes[row] = code
        codes[never] = _CODES[EXCLUDED]
        here = slice(self.before, None)
        taken = np.bincount(np.searchsorted(ends, first[here][never[here]], "right"), minlength=len(ends))
        near = self._near(options, signatures, codes) if self.signed else _Near.none(len(first))
        codes[near.gone] = _CODES[NEAR_DUPLICATE]
        duplicates = (codes == _CODES[DUPLICATE]) | (codes == _CODES[NEAR_DUPLICATE])
        stays = np.where(duplicates, near.instead[first], -1) - self.before
        return Decisions(
            self.reasons,
            codes[here],
            _numbers(near.groups[first], codes <= _CODES[NEAR_DUPLICATE], self.before),
            similarity(near.matches[here]).astype(np.float32),
            np.maximum(stays[here], -1),
            dict(zip(self.excluded, taken.tolist(), strict=True)),
            self.items,
        )

    def _near(self, options: DedupOptions, path: Path, codes: np.ndarray) -> "_Near":
        """Compare the rows that are still to stay."""
        signed = np.frombuffer(self.signed, "<u4").astype(np.int32)
        active = np.flatnonzero(codes[signed] == 0)
        preference = self._preference(signed, options.keep)
        ranks = np.full(len(signed), NONE, np.int32)
        ranks[active[np.lexsort([key[active] for key in preference])]] = np.arange(len(active))
        with closing(Signatures(path)) as signatures:
            found = cluster(signatures, ranks, options.threshold)
        near, gone = _Near.none(len(codes)), np.flatnonzero(found.stands_for != NONE)
        near.gone = signed[gone]
        near.instead[near.gone] = signed[found.stands_for[gone]]
        near.matches[near.gone] = found.matches[gone]
        near.groups[signed] = signed[found.roots]
        return near

    def _preference(self, signed: np.ndarray, keep: str) -> list[np.ndarray]:
        """Sort keys of the rows with a signature, the last one first: documents of earlier runs stay in any case."""
        lengths, dates = (~np.frombuffer(values, "<u4") for values in (self.lengths, self.dates))  # the largest first
        keys = {"first": [], "longest": [lengths], "newest": [lengths, dates]}[keep]
        return [signed, *keys, signed >= self.before]


@dataclass
class _Near:
    """What near duplicates change, by row: the group that a row is in, and what stays for it (itself without)."""

    gone: np.ndarray
    groups: np.ndarray
    instead: np.ndarray
    matches: np.ndarray

    @classmethod
    def none(cls, rows: int) -> Self:
        """Each row stands for itself."""
        own = np.arange(rows, dtype=np.int32)
        return cls(own[:0], own, own.copy(), np.full(rows, PERMUTATIONS, np.uint16))


def _numbers(groups: np.ndarray, counted: np.ndarray, before: int) -> np.ndarray:
    """Clusters of the rows from `before` on, numbered as they first appear; -1 for a row that is alone."""
    sizes = np.bincount(groups[counted], minlength=len(groups))
    clustered = counted & (sizes[groups] > 1)
    clustered[:before] = False
    _, first, which = np.unique(groups[clustered], return_index=True, return_inverse=True)
    numbers = np.full(len(groups), NO_CLUSTER, np.int32)
    numbers[clustered] = np.argsort(np.argsort(first))[which]
    return numbers[before:]


def first_of(digests: bytearray) -> np.ndarray:
    """For each row of 16 bytes the number of the first row that is equal to it."""
    values = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = np.lexsort((values[:, 1], values[:, 0]))  # stable: equal ones in the order of their rows
    order = order.astype(np.int32)
    new = np.zeros(len(order), bool)
    new[:1] = True
    for column in values.T:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    first = np.empty(len(order), np.int32)
    first[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order), dtype=np.int32), 0))]
    return first


def write_clusters(decisions: Decisions, named: Iterable[tuple[str, str, str]], path: Path) -> None:
    """Write which documents are duplicates of each other, cluster by cluster; `kept` has what stays of them.

    named: (id, source, title) of every document, in order. A cluster in which nothing is kept is one of documents that
    an earlier run holds. Memory: some 150 bytes a document that has duplicates. Raises StorageError.
    """
    batches = []
    chosen = iter(np.flatnonzero(decisions.clusters != NO_CLUSTER).tolist())
    wanted = next(chosen, None)
    rows: list[tuple[Any, ...]] = []
    for index, names in enumerate(named):
        if index == wanted:
            kept, similarity = not decisions.codes[index], float(decisions.similarities[index])
            rows.append((decisions.cluster(index), *names, kept, similarity))
            wanted = next(chosen, None)
        if len(rows) >= _ROWS_AT_ONCE or (rows and wanted is None):
            batches.append(pa.record_batch([list(column) for column in zip(*rows, strict=True)], schema=CLUSTERS))
            rows = []
    table = pa.Table.from_batches(batches, schema=CLUSTERS).sort_by("cluster")
    with whole_file(path) as file:
        pq.write_table(table, file, compression="zstd")
