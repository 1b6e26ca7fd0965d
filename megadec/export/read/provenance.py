"""megadec.json: where an export comes from and what it was compared on, beside the files that a runtime reads.

In come a source, its tokenizer and what the comparison found; out goes the content of the file. One file of one form in
every format, read by nobody but us, instead of the formats' own metadata, which each keep something else.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from megadec import __version__
from megadec.common.tokenizer import Tokenizer
from megadec.export.parity.compare import Parity
from megadec.export.read.source import ModelSource

PROVENANCE_FILE = "megadec.json"
PROVENANCE_FORMAT = "megadec-export"


def provenance(source: ModelSource, tokenizer: Tokenizer, parity: Parity) -> dict[str, Any]:
    """The content of megadec.json for an export of `source` that was found equal to it."""
    return {
        "format": PROVENANCE_FORMAT,
        "version": 1,
        "megadec": __version__,
        "source": source.provenance,
        "task": dict(source.task),
        "tokenizer": {"sha256": tokenizer.sha256, "vocabulary_size": tokenizer.vocabulary_size},
        "parity": dataclasses.asdict(parity),
    }
