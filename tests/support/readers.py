"""Readers of the corpus on small files: write one, read what is in it."""

from pathlib import Path
from typing import Any

from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.pieces import Reader
from megadec.corpus.sources.reading import ReadOptions


def read(reader: Reader, path: Path, **options: Any) -> list[Document]:
    """All documents of a path."""
    return list(reader(path, CorpusReport(), ReadOptions(**options)))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """Write a file, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path
