"""The hash of a text, by which duplicates, texts that must not be learned and the held-out share are known.

Two texts share one of 16 bytes with a probability of 1e-19 among a billion. Near duplicates are not seen.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from megadec.common.errors import ConfigError
from megadec.corpus.clean.text import clean_text
from megadec.corpus.document import full_text, read_documents
from megadec.corpus.report.counts import CorpusReport
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
            for line in filter(str.strip, lines(member, encoding, CorpusReport())):
                yield from map(digest_of, (line, line.rpartition("\t")[0] or line))
