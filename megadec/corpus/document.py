"""The document, the one thing that passes between the steps of the corpus, and its Parquet file.

Row groups are small, so that reading needs a few tens of megabytes whatever the file's size; larger ones would compress
a few percent better.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.errors import InputError
from megadec.common.log import logger

ROW_GROUP_DOCUMENTS = 4096
ROW_GROUP_CHARACTERS = 4 * 2**20
log = logger(__name__)
BESIDE_DOCUMENTS = (".dropped.parquet", ".duplicates.parquet")
_FORMAT = {b"megadec": b"documents/1"}


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of text that is learned as a whole, and where it came from.

    `variant` is zh-Hans, zh-Hant, mixed, or empty while unknown; `label` is the class that the source gave, if any.
    """

    id: str
    source: str
    text: str
    title: str = ""
    label: str = ""
    url: str = ""
    licence: str = ""
    variant: str = ""


FIELDS = tuple(field.name for field in fields(Document))
SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in FIELDS], metadata=_FORMAT)


def full_text(document: Document) -> str:
    """What is tokenized: the title on a line of its own, unless the text opens with it, then the text."""
    if not document.title or document.text.startswith(document.title):
        return document.text
    return f"{document.title}\n{document.text}" if document.text else document.title


class DocumentsWriter:
    """Writes documents to an open binary file as Parquet, a row group at a time.

    Use as a context manager: leaving it writes the rest; leaving it with an exception writes nothing more.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = pq.ParquetWriter(file, SCHEMA, compression="zstd")
        self._group: list[Document] = []
        self._waiting_characters = 0

    def write(self, document: Document) -> None:
        self._group.append(document)
        self._waiting_characters += len(document.text)
        if len(self._group) >= ROW_GROUP_DOCUMENTS or self._waiting_characters >= ROW_GROUP_CHARACTERS:
            self._write_group()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            # Or its destructor would try to write the end of a file that is given up and closed.
            self._writer.is_open = False
            return
        if self._group:
            self._write_group()
        self._writer.close()

    def _write_group(self) -> None:
        columns = [[getattr(document, name) for document in self._group] for name in FIELDS]
        self._group, self._waiting_characters = [], 0
        self._writer.write_table(pa.table(columns, schema=SCHEMA))


def read_documents(paths: Sequence[Path]) -> Iterator[Document]:
    """Documents of the files, in order, in constant memory.

    Raises InputError for a file that is missing, is not Parquet, is damaged, or is not one of documents.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                if is_list(file.schema_arrow):
                    log.info("%s: a list that prepare writes beside documents; it is not read", path)
                    continue
                if not is_ours(file.schema_arrow):
                    found = f"columns {', '.join(file.schema_arrow.names)}: not a file of documents"
                    raise InputError(f"{path}: {found} (read it with --source parquet)")
                for batch in file.iter_batches(batch_size=256, columns=list(FIELDS)):
                    for row in batch.to_pylist():
                        yield Document(**row)
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a whole Parquet file: {error}") from error


def is_list(schema: pa.Schema) -> bool:
    """Whether a Parquet file of this schema is one of those that stand beside documents: what was dropped, clusters."""
    kind: bytes = (schema.metadata or {}).get(b"megadec", b"")
    return kind.startswith((b"dropped/", b"duplicates/"))


def documents_only(paths: Sequence[Path]) -> tuple[Path, ...]:
    """The paths without what `prepare` writes beside documents, which a pattern such as documents/*.parquet brings."""
    return tuple(path for path in paths if not path.name.endswith(BESIDE_DOCUMENTS))


def is_ours(schema: pa.Schema) -> bool:
    """Whether a Parquet file of this schema is one of documents."""
    return (schema.metadata or {}).get(b"megadec") == _FORMAT[b"megadec"]
