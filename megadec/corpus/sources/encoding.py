"""Bytes to characters, strictly: what is not in the encoding that was said is an error, never a replaced character.

Memory is constant. `auto` decides from the first megabyte whether a file is UTF-8 or GB18030, and stays with that: a
file in two encodings is an error.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import partial
from io import IncrementalNewlineDecoder
from itertools import chain

from megadec.common.errors import InputError, check_choice
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.files import Member, reading
from megadec.corpus.sources.reading import ReadOptions

BLOCK_BYTES = 1 << 20
LARGEST_DOCUMENT_CHARACTERS = 64 << 20
# GB18030 holds GBK and GB2312 as subsets, and files said to be the smaller ones are often in the larger.
ENCODINGS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("gb18030", "gbk", "gb2312", "cp936"), "gb18030"),
    "big5": "big5hkscs",
    "utf-16": "utf-16",
    "auto": "auto",
}
_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_HAN = re.compile("[\u4e00-\u9fff]")


def check_encoding(encoding: str) -> str:
    """The codec of an encoding's name. Raises ConfigError for one that is not known."""
    name = encoding.lower().replace("_", "-")
    check_choice("encoding", name, ENCODINGS)
    return ENCODINGS[name]


def characters(member: Member, encoding: str, report: CorpusReport) -> Iterator[str]:
    """The characters of a file, a block at a time, without a byte order mark.

    Raises InputError with the file, the offset of the byte, what was found there, and what to try.
    """
    head = _read(member)
    codec = check_encoding(encoding)
    if codec == "auto":
        codec = _detect(head)
        report.note(f"files read as {codec}")
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset = 0
    for block in chain([head], iter(partial(_read, member), b""), [b""]):
        start = offset - len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_in(member.name, encoding, codec, start, error) from None
        yield text if offset else text.removeprefix("\ufeff")
        offset += len(block)


def whole_text(member: Member, options: ReadOptions, report: CorpusReport) -> str:
    """All characters of a file. Raises InputError as `characters` does, and for a file that is too large."""
    limit = f"larger than {LARGEST_DOCUMENT_CHARACTERS >> 20} Mi characters, which is too much for one document"
    too_long = f"{member.name}: {limit}; for a file of lines give --lines_per_document"
    return joined(characters(member, options.encoding, report), LARGEST_DOCUMENT_CHARACTERS, too_long)


def joined(parts: Iterable[str], most: int, too_long: str) -> str:
    """The parts as one text. Raises InputError that says `too_long` as soon as they have over `most` characters."""
    taken: list[str] = []
    size = 0
    for part in parts:
        taken.append(part)
        size += len(part)
        if size > most:
            raise InputError(too_long)
    return "".join(taken)


def lines(member: Member, encoding: str, report: CorpusReport) -> Iterator[str]:
    """Lines with their ends, which become `\\n` (from `\\r\\n` and `\\r` too). A line may be as long as it likes."""
    newlines = IncrementalNewlineDecoder(None, translate=True)
    rest = ""
    for text in characters(member, encoding, report):
        *whole, rest = (rest + newlines.decode(text)).split("\n")
        for line in whole:
            yield line + "\n"
    rest += newlines.decode("", final=True)
    if rest:
        yield rest


def filled_lines(member: Member, encoding: str, report: CorpusReport) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    return ((number, line) for number, line in enumerate(lines(member, encoding, report), 1) if line.strip())


def _read(member: Member) -> bytes:
    with reading(member.name):
        return member.file.read(BLOCK_BYTES)


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
