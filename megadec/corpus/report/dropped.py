"""The list of dropped documents, a Parquet file: which one, why, at which stage, and how its text begins."""

from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.files import whole_file
from megadec.corpus.document import Document
from megadec.corpus.report.counts import writable

SHOWN_CHARACTERS = 200
DROPPED = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("id", "source", "title", "reason", "stage", "text")),
        pa.field("characters", pa.int64(), nullable=False),
    ],
    metadata={b"megadec": b"dropped/1"},
)


@dataclass
class DroppedList:
    """Dropped documents, by columns. A name or a text is cut to its first 200 characters; `characters` are raw ones.

    source: what the run calls the source of every document, where it does.
    """

    source: str = ""
    columns: dict[str, list[str | int]] = field(default_factory=lambda: {name: [] for name in DROPPED.names})

    def add(self, document: Document, reason: str, stage: str, raw_characters: int) -> None:
        """List a document."""
        source = self.source or document.source
        named = {"id": document.id, "source": source, "title": document.title, "reason": reason, "stage": stage}
        for name, text in {**named, "text": document.text}.items():
            self.columns[name].append(writable(text[:SHOWN_CHARACTERS]))
        self.columns["characters"].append(raw_characters)

    def write(self, path: Path) -> None:
        """Write them, if there are any, whole or not at all. Raises StorageError."""
        if self.columns["id"]:
            with whole_file(path) as file:
                pq.write_table(pa.table(self.columns, schema=DROPPED), file, compression="zstd")
