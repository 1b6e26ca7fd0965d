"""Tables in Parquet: any with a column of text, and our own files of documents.

In: .parquet files or folders of them. Out: a document a row. Rows are read in small batches, which is slower than whole
columns and keeps memory constant.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import pyarrow.parquet as pq

from megadec.common.errors import InputError
from megadec.corpus.document import FIELDS, Document, is_list, is_ours
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.files import Entry, NothingChosenError, entries, entry_in, reading
from megadec.corpus.sources.pieces import Piece
from megadec.corpus.sources.places import Place, open_place, place_of, within
from megadec.corpus.sources.reading import FieldMapping, LineCheck, ReadOptions

SOURCE = "parquet"
SUFFIXES = (".parquet",)
BATCH_ROWS = 256
PIECE_BYTES = 16 << 20  # of row groups as they are in memory


@dataclass(frozen=True)
class ParquetReader:
    """Reads tables by row groups. rows: the documents of a table that is open, from row groups (None: all) whose first
    row has a number; called with the file's entry."""

    rows: Callable[..., Iterator[Document]]

    def __call__(self, path: Place, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """All documents at `path`. Raises InputError for a missing column, damage, and a folder without tables."""
        for entry in parquet_files(path, options):
            with reading(entry.name), opened(entry) as table:
                yield from self.rows(entry, table, None, 1, report, options)

    def pieces(self, path: Place, options: ReadOptions) -> Iterator[Piece]:
        """A piece for row groups that have about 16 MiB."""
        found = parquet_files(path, options)
        if not found:
            lists = "only lists of dropped documents or of duplicates, which stand beside documents, not documents"
            raise NothingChosenError(f"{path}: {lists}")
        for entry in found:
            with reading(entry.name), opened(entry) as table:
                groups = [table.metadata.row_group(group) for group in range(table.num_row_groups)]
            files = (entry.inner,) if entry.inner else ()
            starts = [0, *accumulate(group.total_byte_size for group in groups)]
            rows = [0, *accumulate(group.num_rows for group in groups)]
            for _, numbers in groupby(range(len(groups)), key=lambda number: starts[number] // PIECE_BYTES):
                first, *others = numbers
                end = (others or [first])[-1] + 1
                yield Piece(f"{entry.name}:{first}-{end}", entry.root, files, first, end, rows[first] + 1)

    def read_piece(self, piece: Piece, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """The documents of some row groups."""
        entry = entry_in(piece.path, piece.files[0] if piece.files else "")
        assert piece.end is not None
        groups = list(range(piece.start, piece.end))
        with reading(entry.name), opened(entry) as table:
            yield from self.rows(entry, table, groups, piece.first, report, options)


def table_rows(
    entry: Entry,
    table: pq.ParquetFile,
    groups: list[int] | None,
    first: int,
    report: CorpusReport,
    options: ReadOptions,
) -> Iterator[Document]:
    """A document for each row. Raises InputError for a missing column; a row whose text is none is malformed."""
    mapping = FieldMapping(options, entry.name, table.schema_arrow.names)
    check = LineCheck(entry.name, SOURCE, report, options.malformed_fraction)
    batches = table.iter_batches(batch_size=BATCH_ROWS, row_groups=groups)
    for number, row in enumerate((row for batch in batches for row in batch.to_pylist()), first):
        try:
            document = mapping.document(row, default_id=f"{entry.path.stem}:{number}", source=SOURCE)
        except ValueError as error:
            check.drop(json.dumps(row, ensure_ascii=False, default=str), number, str(error))
        else:
            yield document


def document_rows(
    entry: Entry,
    table: pq.ParquetFile,
    groups: list[int] | None,
    first: int,
    report: CorpusReport,
    options: ReadOptions,
) -> Iterator[Document]:
    """Documents of a file that an earlier run wrote: cleaned and judged already, with their own sources."""
    if not is_ours(table.schema_arrow):
        found = f"columns {', '.join(table.schema_arrow.names)}: not a file of documents"
        raise InputError(f"{entry.name}: {found} (read it with --source parquet)")
    for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=list(FIELDS), row_groups=groups):
        for row in batch.to_pylist():
            yield Document(**row)


read_parquet = ParquetReader(table_rows)
read_prepared = ParquetReader(document_rows)


def opened(entry: Entry) -> pq.ParquetFile:
    """The table of a file."""
    place = within(entry.root, entry.inner) if entry.inner else entry.root
    return pq.ParquetFile(place if isinstance(place, Path) else open_place(place), pre_buffer=False)


def parquet_files(path: Place, options: ReadOptions) -> list[Entry]:
    """The Parquet files at `path` in order: itself, or those of a folder that match include and exclude.

    The lists that prepare writes beside documents are no input, also where a pattern has named them.
    """
    return [entry for entry in entries(place_of(path), SUFFIXES, options) if not _is_list(entry)]


def _is_list(entry: Entry) -> bool:
    with reading(entry.name), opened(entry) as table:
        return is_list(table.schema_arrow)


def is_prepared(path: Place, options: ReadOptions) -> bool:
    """Whether the Parquet files at `path` are files of documents of ours. Raises InputError for damage."""
    kinds = set()
    for entry in parquet_files(path, options):
        with reading(entry.name), opened(entry) as table:
            kinds.add(is_ours(table.schema_arrow))
    if len(kinds) > 1:
        raise InputError(f"{path}: holds both files of documents and other tables; read them in two runs")
    return kinds <= {True}
