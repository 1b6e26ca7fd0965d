"""Bytes to characters, strictly: what is not in the encoding that was said is an error, never a replaced character.

Memory is constant. `auto` decides from the first megabyte whether a file is UTF-8 or GB18030, and stays with that: a
file in two encodings is an error.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BytesIO

from megadec.common.errors import ConfigError, InputError, suggest
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources.files import Member, reading

BLOCK_BYTES = 1 << 20
# GB18030 holds GBK and GB2312 as subsets, and files said to be the smaller ones are often in the larger.
ENCODINGS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "gb18030": "gb18030",
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "cp936": "gb18030",
    "big5": "big5hkscs",
    "utf-16": "utf-16",
    "auto": "auto",
}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_HAN = re.compile("[\u4e00-\u9fff]")


def check_encoding(encoding: str) -> str:
    """The codec of an encoding's name. Raises ConfigError for one that is not known."""
    name = encoding.lower().replace("_", "-")
    if name not in ENCODINGS:
        raise ConfigError(f"encoding={encoding}: not one of {', '.join(ENCODINGS)}{suggest(name, ENCODINGS)}")
    return ENCODINGS[name]


def characters(member: Member, encoding: str, report: CorpusReport) -> Iterator[str]:
    """The characters of a file, a block at a time, without a byte order mark.

    Raises InputError with the file, the offset of the byte, what was found there, and what to try.
    """
    head = _read(member, BLOCK_BYTES)
    codec = check_encoding(encoding)
    if codec == "auto":
        codec = _detect(head)
        report.note(f"files read as {codec}")
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset, block, first = 0, head, True
    while True:
        waiting = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_in(member.name, encoding, codec, offset - waiting, error) from None
        offset += len(block)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        if text:
            yield text
        if not block:
            return
        block = _read(member, BLOCK_BYTES)


def decode(member: Member, data: bytes, encoding: str, report: CorpusReport) -> str:
    """All of a file's bytes as characters. Raises InputError as `characters` does."""
    return "".join(characters(Member(member.name, member.path, BytesIO(data)), encoding, report))


def lines(member: Member, encoding: str, report: CorpusReport) -> Iterator[str]:
    """Lines with their ends, which become `\\n` (from `\\r\\n` and `\\r` too). A line may be as long as it likes."""
    rest = ""
    for text in characters(member, encoding, report):
        text = rest + text
        # A \r at the end of a block may be the first half of \r\n.
        held = "\r" if text.endswith("\r") else ""
        pieces = (text[: len(text) - len(held)]).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        rest = pieces.pop() + held
        for piece in pieces:
            yield piece + "\n"
    if rest:
        yield rest.removesuffix("\r")


def _read(member: Member, size: int) -> bytes:
    with reading(member.name):
        return member.file.read(size)


def _detect(head: bytes) -> str:
    for mark, codec in _BOMS:
        if head.startswith(mark):
            return codec
    return next((codec for codec in ("utf-8", "gb18030") if _begins_as(codec, head) is not None), "utf-8")


def _begins_as(codec: str, head: bytes) -> str | None:
    """The text of a file's beginning, which may end within a character; None where it is not in this codec."""
    try:
        return codecs.getincrementaldecoder(codec)("strict").decode(head, final=False)
    except UnicodeDecodeError:
        return None


def _not_in(name: str, asked: str, codec: str, start: int, error: UnicodeDecodeError) -> InputError:
    rest = error.object[error.start :]
    found = " ".join(f"{byte:02x}" for byte in rest[:4])
    message = f"{name}: byte {start + error.start}: {found} is not {codec} ({error.reason})"
    if codec == "utf-8" and asked != "auto" and _HAN.search(_begins_as("gb18030", rest[:4096]) or ""):
        return InputError(f"{message}; it looks like GB18030 or GBK: give --encoding gb18030 (or auto)")
    return InputError(f"{message}; say what it is with --encoding ({', '.join(sorted(set(ENCODINGS.values())))})")
