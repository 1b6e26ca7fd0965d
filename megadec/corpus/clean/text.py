"""Makes plain text uniform: visible characters, one width, single blanks, at most one blank line in a row.

NFKC would also turn ，！？；：（） into ASCII, so only letters, digits and a few signs of technical writing become half
width. Cleaning twice changes nothing.
"""

import re
import unicodedata

_FULL_WIDTH_OFFSET = 0xFEE0
_HALVED = "%+-=#&*@\\^_|<>/$'\"" + "".join(map(chr, (*range(0x30, 0x3A), *range(0x41, 0x5B), *range(0x61, 0x7B))))
# sentencepiece writes a blank as U+2581 and would give this sign back as a blank.
_LOWER_BLOCK = {0x2581: "_"}
_HALF_WIDTH_CHINESE = {0xFF61: "。", 0xFF62: "「", 0xFF63: "」", 0xFF64: "、"}
_IDEOGRAPHIC_SPACE = "\u3000"
_NEWLINES = "\n\v\f\x1c\x1d\x1e\x85\u2028\u2029"
# A full stop in full width ends a sentence in some books of mathematics; between letters or digits it is a point.
_POINT = re.compile("(?<=[0-9A-Za-z])\uff0e(?=[0-9A-Za-z])")
_BLANKS = re.compile("[ \t\u3000]{2,}|[\t\u3000]")
_BLANK_LINES = re.compile("\n{3,}")
# A zero-width joiner is part of a picture where it stands between two (👨‍👩‍👧); tags are, after a flag.
_PICTURE = "\u2190-\u2bff\U0001f000-\U0001fbff"
_JOINER = re.compile(f"\u200d(?:(?<![{_PICTURE}\ufe0f].)|(?![{_PICTURE}]))")
_TAGS = re.compile("[\U000e0020-\U000e007f](?<![\U0001f3f4\U000e0020-\U000e007e].)[\U000e0020-\U000e007f]*")
_CHINESE_START = re.compile("[\u2010-\u2027\u3001-\u9fff\uf900-\ufaff\uff01-\uff65\U00020000-\U0003ffff]")


class _Characters(dict[int, str | None]):
    """What becomes of each character, found out once: kept, dropped, or replaced."""

    def __missing__(self, code: int) -> str | None:
        self[code] = value = _replacement(chr(code))
        return value


def _replacement(character: str) -> str | None:
    if character in _NEWLINES:
        return "\n"
    if character in ("\t", _IDEOGRAPHIC_SPACE):
        return character
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    if character == "\u200d" or "\U000e0020" <= character <= "\U000e007f":
        return character  # judged by its neighbors
    if category == "Cn":
        # Unassigned in Python's Unicode, but perhaps not in today's: only noncharacters are never assigned.
        return None if ord(character) & 0xFFFE == 0xFFFE or "\ufdd0" <= character <= "\ufdef" else character
    # Control, format (zero width, direction marks, byte order mark), private use, surrogate.
    return None if category[0] == "C" else character


_CHARACTERS = _Characters(
    {ord(character) + _FULL_WIDTH_OFFSET: character for character in _HALVED} | _HALF_WIDTH_CHINESE | _LOWER_BLOCK
)


def clean_text(text: str) -> str:
    """`text` without characters that nobody sees, in one width, with single blanks and at most one blank line in a row.

    Newlines stay newlines (`\\r\\n`, `\\r` and the Unicode ones too). Leading ASCII blanks stay where code or a list is
    indented, and go before Chinese text. U+FFFD stays: the filter judges it.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").translate(_CHARACTERS)
    text = _TAGS.sub("", _JOINER.sub("", text))
    text = unicodedata.normalize("NFC", text)
    text = _POINT.sub(".", text)
    lines = [_clean_line(line) for line in text.split("\n")]
    return _BLANK_LINES.sub("\n\n", "\n".join(lines)).strip("\n")


def _clean_line(line: str) -> str:
    content = line.strip(" \t\u3000")
    if not content:
        return ""
    if "  " in content or "\t" in content or _IDEOGRAPHIC_SPACE in content:
        content = _BLANKS.sub(" ", content)
    indent = line[: len(line) - len(line.lstrip(" \t\u3000"))]
    if not indent or _IDEOGRAPHIC_SPACE in indent or _CHINESE_START.match(content):
        return content
    return indent + content


def clean_line(text: str) -> str:
    """`clean_text` for what is one line by nature, a title or a label: newlines become blanks."""
    if text.isascii() and text.isprintable():  # most ids and labels, and all empty ones: nothing to look up
        return " ".join(text.split())
    return " ".join(clean_text(text).split())
