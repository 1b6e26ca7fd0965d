"""Files of documents for tests."""

from collections.abc import Iterable
from pathlib import Path

from megadec.common.files import whole_file
from megadec.corpus.document import Document, DocumentsWriter


def write_documents(path: Path, documents: Iterable[Document]) -> None:
    """Write one Parquet file, as tools/prepare.py does."""
    with whole_file(path) as file, DocumentsWriter(file) as writer:
        for document in documents:
            writer.write(document)
