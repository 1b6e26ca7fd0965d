"""Bytes to characters, strictly: what is not in the encoding that was said is an error, never a replaced character.

Memory is constant. `auto` decides from the first megabyte of a file and stays with that: a file in two encodings is an
error.
"""

import codecs
from collections.abc import Iterable, Iterator
from io import IncrementalNewlineDecoder
from itertools import chain

from megadec.common.errors import InputError, check_choice
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.detect import detect
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.reading import LineCheck, ReadOptions

LARGEST_DOCUMENT_CHARACTERS = 64 << 20
LONGEST_LINE_CHARACTERS, LONGEST_LINE_BYTES = 256 << 20, 512 << 20
# GB18030 holds GBK and GB2312 as subsets, and files said to be the smaller ones are often in the larger.
ENCODINGS = {
    **dict.fromkeys(("utf-8", "utf8"), "utf-8"),
    **dict.fromkeys(("gb18030", "gbk", "gb2312", "cp936"), "gb18030"),
    "big5": "big5hkscs",
    **{name: name for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")},
    "auto": "auto",
}


class UndecodableError(InputError):
    """A file is not in the encoding that was said, or in none that is known."""


def check_encoding(encoding: str) -> str:
    """The codec of an encoding's name. Raises ConfigError for one that is not known."""
    name = encoding.lower().replace("_", "-")
    check_choice("encoding", name, ENCODINGS)
    return ENCODINGS[name]


def codec_of(member: Member, encoding: str) -> str:
    """The codec that a file is read with. Raises InputError where its beginning is clearly in another encoding."""
    codec = check_encoding(encoding)
    if codec in ("auto", "utf-16"):  # without a mark, utf-16 says nothing of the order of its bytes
        return detect(member.head, ("utf-16-le", "utf-16-be") if codec == "utf-16" else ())
    if codec in ("gb18030", "big5hkscs"):  # nearly any bytes are characters of these, if not the right ones
        found = detect(member.head, surely=True)
        if found not in ("", codec):
            raise UndecodableError(
                f"{member.name}: read as {encoding} it is no Chinese text, but as {found} it is: give --encoding "
                f"{_name_of(found)} (or auto)"
            )
    return codec


def characters(member: Member, encoding: str, report: CorpusReport) -> Iterator[str]:
    """The characters of a file or part, a block at a time, without a byte order mark.

    Raises InputError with the file, the offset of the byte, what was found there, and what to try.
    """
    codec = _noted_codec(member, encoding, report)
    decoder = codecs.getincrementaldecoder(codec)("strict")
    offset = member.start
    for block in chain(member.blocks(), [b""]):
        start = offset - len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise _not_in(member, codec, start, error) from None
        yield text if offset else text.removeprefix("\ufeff")
        offset += len(block)


def _noted_codec(member: Member, encoding: str, report: CorpusReport) -> str:
    codec = codec_of(member, encoding)
    if check_encoding(encoding) == "auto" and not member.start:
        report.note(f"files read as {_name_of(codec)}")
    return codec


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


def lines(member: Member, encoding: str, report: CorpusReport, check: LineCheck | None = None) -> Iterator[str]:
    """Lines with their ends, which become `\\n` (from `\\r\\n` and `\\r` too).

    With `check` a line that is not in the encoding is dropped by it and comes as a blank one, unless most are so.
    Raises InputError for a line of more than 256 Mi characters, and as `characters` does.
    """
    wide = codec_of(member, encoding).startswith(("utf-16", "utf-32"))
    if wide or check is None:
        texts = characters(member, encoding, report)
    else:
        texts = _whole_lines(member, encoding, report, check)
    newlines = IncrementalNewlineDecoder(None, translate=True)
    begun: list[str] = []  # of the line under way: joined once, so that a long one takes linear time
    size = 0
    for text in chain(texts, [""]):
        first, *others = newlines.decode(text, final=not text).split("\n")
        begun.append(first)
        size += len(first)
        if others:
            yield "".join(begun) + "\n"
            for line in others[:-1]:
                yield line + "\n"
            begun, size = [others[-1]], len(others[-1])
        if size > LONGEST_LINE_CHARACTERS:
            raise InputError(f"{member.name}: a line of more than {LONGEST_LINE_CHARACTERS >> 20} Mi characters")
    if rest := "".join(begun):
        yield rest


def _whole_lines(member: Member, encoding: str, report: CorpusReport, check: LineCheck) -> Iterator[str]:
    """The text of whole lines, a block or so at a time."""
    codec = _noted_codec(member, encoding, report)
    begun: list[bytes] = []
    offset, number = member.start, member.line
    for block in chain(member.blocks(), [b""]):
        end = block.rfind(b"\n") + 1
        if block and not end:
            begun.append(block)
            if len(begun) * len(block) > LONGEST_LINE_BYTES:
                raise InputError(f"{member.name}: line {number} has more than {LONGEST_LINE_BYTES >> 20} MiB")
            continue
        raw = b"".join(begun) + block[:end]
        begun = [block[end:]]
        try:
            text = raw.decode(codec)
        except UnicodeDecodeError:
            text = _decodable(member, raw, codec, offset, number, check)
        yield text if offset else text.removeprefix("\ufeff")
        offset += len(raw)
        number += raw.count(b"\n")


def _decodable(member: Member, raw: bytes, codec: str, offset: int, number: int, check: LineCheck) -> str:
    """The lines of `raw`, blank where they are not in the codec. Raises UndecodableError where most are not."""
    texts: list[str] = []
    wrong: list[tuple[int, bytes, InputError]] = []
    for place, line in enumerate(_with_ends(raw)):
        try:
            texts.append(line.decode(codec))
        except UnicodeDecodeError as error:
            wrong.append((number + place, line, _not_in(member, codec, offset, error)))
            texts.append("\n" if line.endswith(b"\n") else "")
        offset += len(line)
    if len(wrong) > sum(bool(text.strip()) for text in texts):
        raise wrong[0][2]
    for line_number, line, found in wrong:
        check.drop(line.decode(codec, "replace"), line_number, str(found).removeprefix(f"{member.name}: "))
    return "".join(texts)


def _with_ends(raw: bytes) -> list[bytes]:
    *whole, rest = raw.split(b"\n")
    return [line + b"\n" for line in whole] + ([rest] if rest else [])


def filled_lines(
    member: Member, encoding: str, report: CorpusReport, check: LineCheck | None = None
) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers in the file, from 1."""
    return (
        (number, line)
        for number, line in enumerate(lines(member, encoding, report, check), member.line)
        if line.strip()
    )


def _name_of(codec: str) -> str:
    """A codec's name among ENCODINGS."""
    return "big5" if codec == "big5hkscs" else codec


def _not_in(member: Member, codec: str, start: int, error: UnicodeDecodeError) -> UndecodableError:
    rest = error.object[error.start :]
    found = " ".join(f"{byte:02x}" for byte in rest[:4])
    message = f"{member.name}: byte {start + error.start}: {found} is not {_name_of(codec)} ({error.reason})"
    likely = detect(member.head)
    if likely not in (codec, "utf-8") and rest[1:]:
        also = " or GBK" if likely == "gb18030" else ""
        looks = f"it looks like {_name_of(likely).upper()}{also}"
        return UndecodableError(f"{message}; {looks}: give --encoding {_name_of(likely)} (or auto)")
    others = ", ".join(sorted(set(ENCODINGS) - {"auto"}))
    return UndecodableError(f"{message}; say what it is with --encoding ({others})")
