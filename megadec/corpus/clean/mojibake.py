"""Text that was decoded with another encoding than its own before it came here: seen by its characters, and undone.

`鏂伴椈` is 新闻 in UTF-8 that was read as GBK, `ÐÂÎÅ` is the same in GBK that was read as Latin-1. Text has common
characters, such mistakes have rare ones: a line is repaired where undoing a mistake makes its characters common.
"""

import re
from dataclasses import replace

from megadec.corpus.clean.common_characters import BEYOND_ASCII, common_share
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document

NAME = "mojibake"
# (as what it was read, what it was)
_MISTAKES = (
    ("gb18030", "utf-8"),
    ("latin-1", "utf-8"),
    ("latin-1", "gb18030"),
    ("gb18030", "big5hkscs"),
    ("big5hkscs", "gb18030"),
    ("latin-1", "big5hkscs"),
)
# A line with one of these is text. As UTF-8 read as GBK they cannot come about.
_TEXT = re.compile("[的一是在了和有中人年为國国這这]")
_LINE_END = re.compile("(\r\n|\r|\n)")
_HAN = re.compile("[\u3400-\u9fff\ue000-\uf8ff]")  # private use is where GB18030 has none
LEAST_CHARACTERS = 4
LEAST_HAN_FRACTION = 0.3
SAMPLE_CHARACTERS = 300
MOST_SHARE, LEAST_REPAIRED_SHARE = 0.15, 0.35
LEAST_UTF8_SHARE = 0.2  # that bytes are UTF-8 says much by itself
MOST_LOST_FRACTION = 0.05  # of a document's characters, in lines that cannot be repaired


def repair_mojibake(document: Document, context: CleanContext) -> Document | str:
    """The document with its lines repaired, without those of which bytes were lost; or the reason `mojibake` where
    these are more than 5 % of it."""
    if document.text.isascii() and document.title.isascii():
        return document
    doubtful = common_share(document.text[:SAMPLE_CHARACTERS]) < MOST_SHARE
    parts = _LINE_END.split(document.text)
    lost = 0
    for place in range(0, len(parts), 2):
        line = parts[place]
        if len(line) < LEAST_CHARACTERS or (not doubtful and _TEXT.search(line)):
            continue
        repaired = _repaired(line)
        if repaired != line:
            context.taken.add(NAME, len(line) - len(repaired))
            parts[place] = repaired
            lost += 0 if repaired else len(line)
    if lost > MOST_LOST_FRACTION * len(document.text):
        return NAME
    return replace(document, text="".join(parts), title=_repaired(document.title) or document.title)


def _repaired(line: str) -> str:
    """The line as it was meant, itself where it is text already, "" where bytes of it were lost."""
    if len(BEYOND_ASCII.findall(line)) < LEAST_CHARACTERS or common_share(line) >= MOST_SHARE:
        return line
    han = len(_HAN.findall(line)) >= LEAST_HAN_FRACTION * len(BEYOND_ASCII.findall(line))
    for read_as, was in _MISTAKES:
        if read_as != "latin-1" and not han:  # another script
            continue
        raw = _bytes_of(line, read_as)
        if raw is None:
            continue
        meant = raw.decode(was, "replace")
        whole = "\ufffd" not in meant
        if common_share(meant) >= (LEAST_UTF8_SHARE if whole and was == "utf-8" else LEAST_REPAIRED_SHARE):
            return meant if whole else ""
    return line


def _bytes_of(line: str, codec: str) -> bytes | None:
    """The bytes that a codec reads as this line; Latin-1 is Windows' form of it."""
    try:
        if codec != "latin-1":
            return line.encode(codec)
        return b"".join(char.encode("latin-1" if char < "\u0100" else "cp1252") for char in line)
    except UnicodeEncodeError:
        return None
