"""Joins what the workers made of the pieces, in order: one file of documents, one list of what was dropped, shards."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.files import read_json, storage_errors
from megadec.corpus.dedup.exact import is_held_out
from megadec.corpus.document import FIELDS, SCHEMA
from megadec.corpus.piece import Verdict
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.report.dropped import DROPPED
from megadec.corpus.work import Work

GROUP_DOCUMENTS, GROUP_BYTES = 4096, 8 << 20


def joined_report(work: Work, pieces: int, name: str) -> CorpusReport:
    """What was counted in all pieces, when they were cleaned and when they were settled."""
    report = CorpusReport(name)
    for number in range(pieces):
        for path in (work.counts(number), work.settled(number)):
            report.merge(CorpusReport.from_state(read_json(path)["report"]))
    return report


def kept_documents(work: Work, verdicts: Iterable[Verdict], fraction: float) -> Iterator[pa.Table]:
    """The documents to train on, a few at a time."""
    for verdict in verdicts:
        for table in _staying(work, verdict):
            yield table.filter(pa.compute.invert(_held_out(table, fraction)))


def join_documents(
    work: Work, verdicts: Iterable[Verdict], fraction: float, kept: Path | None, held_out: Path | None
) -> None:
    """Write the documents that stay, and those of them that are held out, to a file each, where one is wanted."""
    with _tables(kept, SCHEMA) as to_kept, _tables(held_out, SCHEMA) as to_held_out:
        for verdict in verdicts:
            for table in _staying(work, verdict):
                held = _held_out(table, fraction)
                documents = table.select(FIELDS).replace_schema_metadata(SCHEMA.metadata)
                to_held_out(documents.filter(held))
                to_kept(documents.filter(pa.compute.invert(held)))


def join_dropped(work: Work, pieces: int, path: Path) -> None:
    """Write the list of all dropped documents."""
    with _tables(path, DROPPED) as write:
        for number in range(pieces):
            for part in (work.dropped(number), work.settled(number, "dropped.parquet")):
                if part.exists():
                    write(pq.read_table(part))


def _staying(work: Work, verdict: Verdict) -> Iterator[pa.Table]:
    """The documents of a piece that stay, a few at a time."""
    place = 0
    with pq.ParquetFile(work.passed(verdict.number)) as file:
        for batch in file.iter_batches(batch_size=GROUP_DOCUMENTS, columns=[*FIELDS, "digest"]):
            stays = pa.array(verdict.codes[place : place + len(batch)] == 0)
            place += len(batch)
            yield pa.Table.from_batches([batch]).filter(stays)


def _held_out(table: pa.Table, fraction: float) -> pa.Array:
    return pa.array([is_held_out(digest, fraction) for digest in table["digest"].to_pylist()], pa.bool_())


@contextmanager
def _tables(path: Path | None, schema: pa.Schema) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes tables to a Parquet file, in groups of about one size; without a path it does nothing."""
    if path is None:
        yield lambda table: None
        return
    waiting: list[pa.Table] = []

    def flush() -> None:
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=GROUP_DOCUMENTS)
            waiting.clear()

    def write(table: pa.Table) -> None:
        waiting.append(table)
        if sum(map(len, waiting)) >= GROUP_DOCUMENTS or sum(one.nbytes for one in waiting) >= GROUP_BYTES:
            flush()

    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            yield write
            flush()
