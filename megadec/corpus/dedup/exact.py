"""The hash of a text, by which duplicates, texts that must not be learned and the held-out share are known.

Two texts share one of 16 bytes with a probability of 1e-19 among a billion.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

from megadec.common.errors import ConfigError
from megadec.corpus.clean.text import clean_text
from megadec.corpus.document import full_text, read_documents
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import lines
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

DIGEST_BYTES = 16
# With fewer letters and digits, one symbol is what a text says: a thumb down, C++, 1.5%, -5.
SHORT_CHARACTERS = 100
# Planes 2 and 3 are Han, also where Python's Unicode is older than the text: a hash must not depend on Python.
_IGNORED = re.compile("(?:[^\\w\U00020000-\U0003ffff]|_)+")
_TABLE_SIZE = 0x40000
_FEW_CHARACTERS = 200
# Punctuation that is a symbol in a short text: signs of computing, a minus before a number or behind a letter (A-),
# what stands between two digits (1.5, 3:2, 3~5), faces.
_SIGN = re.compile(r"[%‰#&@*/\\]|-(?=\d)|(?<=\d)[.,:~：，。～](?=\d)|(?<=[A-Za-z])-(?![A-Za-z])|[:;]-?[()（）]")
_ONE_WIDTH = str.maketrans("：，。～（）", ":,.~()")
_TONE = frozenset("~～`´¨｀")  # symbols in Unicode, but written behind a word like a full stop


def digest_of(text: str) -> bytes:
    """16 bytes that are equal for texts that differ in blanks, punctuation, width or case only.

    In a text of fewer than SHORT_CHARACTERS letters and digits, symbols count as well (👍, C++, 1.5%, -5). A text
    without any is hashed as it is, so that such texts do not all share one hash.
    """
    return digest_of_cleaned(clean_text(text))


def digest_of_cleaned(plain: str) -> bytes:
    """`digest_of` for text that `clean_text` was already applied to."""
    return digest_of_letters(plain, letters_of(plain))


def digest_of_letters(plain: str, letters: str) -> bytes:
    """`digest_of` for cleaned text whose letters are known."""
    counted = _with_symbols(plain) if len(letters) < SHORT_CHARACTERS else letters
    return hashlib.blake2b((counted or plain).encode(), digest_size=DIGEST_BYTES).digest()


def letters_of(plain: str) -> str:
    """The letters and digits of a text, in lower case: what is compared of long texts. About 8 ns a character."""
    if len(plain) >= _FEW_CHARACTERS:
        codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), np.uint32)
        if codes.max() < _TABLE_SIZE:
            found = _lower_letters()[codes]
            if not (found == _SPECIAL).any():
                letters: str = found[found != 0].tobytes().decode("utf-32-le", "surrogatepass")
                return letters
    return _IGNORED.sub("", plain).lower()


_SPECIAL = 0xFFFFFFFF


@cache
def _lower_letters() -> np.ndarray:
    """For each code point that of its lower case (uint32); 0 for what is no letter or digit, and _SPECIAL for letters
    whose lower case is more than one character, or depends on its place."""
    letters = _IGNORED.sub("", "".join(map(chr, range(_TABLE_SIZE))))
    table = np.zeros(_TABLE_SIZE, np.uint32)
    for letter in letters:
        lower = letter.lower()
        table[ord(letter)] = ord(lower) if len(lower) == 1 and letter != "Σ" else _SPECIAL
    return table


def _with_symbols(plain: str) -> str:
    """The letters, digits and symbols of a short text; without symbols it is `letters_of`."""
    if plain.isalnum():  # most titles
        return plain.lower()
    dense = "".join(plain.split())
    signs = {at for match in _SIGN.finditer(dense) for at in range(*match.span())}
    kept = (c for at, c in enumerate(dense) if at in signs or c.isalnum() or _is_symbol(c))
    return "".join(kept).translate(_ONE_WIDTH).lower()


def _is_symbol(character: str) -> bool:
    # Unassigned (Cn): the newest pictures, where Python's Unicode is older.
    category = unicodedata.category(character)
    return character not in _TONE and (category[0] == "S" or category == "Cn")


def is_held_out(digest: bytes, fraction: float) -> bool:
    """Whether a text belongs to the held-out share: a fixed function of the text, whatever the run or the order."""
    return int.from_bytes(digest[:8], "big") < fraction * 2.0**64


def excluded_digests(paths: Iterable[Path], encoding: str = "utf-8") -> dict[str, Iterator[bytes]]:
    """Hashes of the texts that must not be learned, by file.

    A .parquet file holds documents of ours; of any other file each line is a text, and so is the part before its last
    tab (`title<TAB>label`). Reading them raises ConfigError for a folder, InputError.
    """
    return {str(path): _digests_in(path, encoding) for path in paths}


def _digests_in(path: Path, encoding: str) -> Iterator[bytes]:
    if path.suffix == ".parquet":
        for document in read_documents([path]):
            yield digest_of(full_text(document))
        return
    if path.is_dir():
        raise ConfigError(f"exclude_texts={path}: a folder; give its files")
    for member in members(path, (".txt", ".tsv", ".csv", ".jsonl"), ReadOptions()):
        for line in filter(str.strip, lines(member, encoding, CorpusReport())):
            yield from map(digest_of, (line, line.rpartition("\t")[0] or line))
