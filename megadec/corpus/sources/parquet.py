"""Tables in Parquet: any with a column of text, and our own files of documents.

In: .parquet files or folders of them. Out: a document a row. Rows are read in small batches, which is slower than whole
columns and keeps memory constant.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from megadec.common.errors import InputError
from megadec.corpus.document import Document, is_ours, read_documents
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.files import reading, wanted
from megadec.corpus.sources.reading import FieldMapping, ReadOptions

SOURCE = "parquet"
BATCH_ROWS = 256


def read_parquet(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each row of a table with a column of text. Raises InputError for a missing column or damage."""
    for file in parquet_files(path, options):
        with reading(str(file)), pq.ParquetFile(file) as table:
            mapping = FieldMapping(options, table.schema_arrow.names, str(file))
            rows = (row for batch in table.iter_batches(batch_size=BATCH_ROWS) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield mapping.document(row, default_id=f"{file.stem}:{number}", source=SOURCE)


def read_prepared(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Documents from files that an earlier run wrote: cleaned and judged already, with their own sources."""
    return read_documents(parquet_files(path, options))


def parquet_files(path: Path, options: ReadOptions) -> list[Path]:
    """The Parquet files at `path` in order: itself, or those of a folder that match include and exclude."""
    if not path.is_dir():
        return [path]
    names = sorted(file for file in path.rglob("*.parquet") if not file.name.startswith("."))
    chosen = [file for file in names if wanted(file.relative_to(path).as_posix(), options)]
    if not chosen:
        raise InputError(f"{path}: no .parquet files in this folder")
    return chosen


def is_prepared(path: Path, options: ReadOptions) -> bool:
    """Whether the Parquet files at `path` are files of documents of ours. Raises InputError for damage."""
    kinds = set()
    for file in parquet_files(path, options):
        with reading(str(file)):
            kinds.add(is_ours(pq.read_schema(file)))
    if len(kinds) > 1:
        raise InputError(f"{path}: holds both files of documents and other tables; read them in two runs")
    return kinds == {True}
