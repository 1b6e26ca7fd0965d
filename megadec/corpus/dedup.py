"""Exact duplicates, across all sources of a run and against texts that must not be learned; and the held-out share.

In: documents. Out: the first of each. 16 bytes of hash a document (about 100 in a Python set) instead of the text; two
texts share a hash with a probability of 1e-19 among a billion. Near duplicates are not seen.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from megadec.common.errors import ConfigError
from megadec.corpus.clean.text import clean_text
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.report import Report
from megadec.corpus.sources.encoding import lines
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

DIGEST_BYTES = 16
_IGNORED = re.compile(r"[\W_]+")


def digest_of(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in blanks, punctuation, width or case only.

    A text without letters or digits is hashed as it is, so that such texts do not all share one hash.
    """
    return digest_of_cleaned(clean_text(text))


def digest_of_cleaned(plain: str) -> bytes:
    """`digest_of` for text that `clean_text` was already applied to."""
    return hashlib.blake2b((_IGNORED.sub("", plain).lower() or plain).encode(), digest_size=DIGEST_BYTES).digest()


class ExactDuplicates:
    """The set of texts that were seen, by hash; `excluded` ones count as seen from the start, for another reason."""

    def __init__(self, excluded: Iterable[bytes] = ()) -> None:
        self._excluded = frozenset(excluded)
        self._seen: set[bytes] = set()

    def reason(self, digest: bytes) -> str:
        """`excluded`, `duplicate`, or an empty string for a text that is new, which from now on is seen."""
        if digest in self._excluded:
            return "excluded"
        if digest in self._seen:
            return "duplicate"
        self._seen.add(digest)
        return ""

    def step(self, documents: Iterable[Document], report: Report) -> Iterator[Document]:
        """Documents whose text is new; the others are dropped as `duplicate` or `excluded`."""
        for document in documents:
            reason = self.reason(digest_of(full_text(document)))
            if reason:
                report.drop(document, reason)
            else:
                yield document


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Whether a text belongs to the held-out share: a fixed function of the text, whatever the run or the order."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def excluded_digests(paths: Iterable[Path], encoding: str = "utf-8") -> Iterator[bytes]:
    """Hashes of the texts in files that must not be learned.

    A .parquet file holds documents of ours; of any other file each line is a text, and so is the part before its last
    tab (`title<TAB>label`). Raises InputError for a file that cannot be read.
    """
    for path in paths:
        if path.suffix == ".parquet":
            for document in read_documents([path]):
                yield digest_of(full_text(document))
            continue
        if path.is_dir():
            raise ConfigError(f"exclude={path}: a folder; give its files")
        for member in members(path, (".txt", ".tsv", ".csv", ".jsonl"), ReadOptions()):
            for line in lines(member, encoding, Report()):
                if line.strip():
                    yield digest_of(line)
                    yield digest_of(line.rpartition("\t")[0] or line)
