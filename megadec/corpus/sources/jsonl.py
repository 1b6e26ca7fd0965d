"""JSON: an object a line, a list of objects, or paragraphs in SQuAD form.

In: .jsonl and .json files, alone, in folders, compressed or in archives. Out: a document an object or a paragraph. What
a file is, is decided by its first line: an object that is whole there begins a file of lines. Lists are read an object
at a time, SQuAD's form whole.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.cuts import LineCuts
from megadec.corpus.sources.encoding import characters, codec_of, filled_lines, joined
from megadec.corpus.sources.files import BLOCK_BYTES, Member
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import FIELD_GUESSES, FieldMapping, LineCheck, ReadOptions

SOURCE = "jsonl"
SUFFIXES = (".jsonl", ".json", ".ndjson")
LARGEST_WHOLE_CHARACTERS = 256 << 20
LARGEST_OBJECT_CHARACTERS = 64 << 20
LINES, LIST, ONE = "lines", "list", "one object"
_NEITHER = "neither a JSON object a line nor one JSON value"
_OTHER_JSON = "neither objects nor paragraphs in SQuAD form (data/paragraphs)"
_TEXT_KEYS = frozenset(",".join(FIELD_GUESSES["text_field"]).split(","))
_SEPARATORS = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()


def json_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each object, or for each paragraph of a SQuAD-form file (its `context`).

    A line that is no object or has no text is dropped as malformed, up to the limit; an empty file is noted. Raises
    InputError where no object has a text or a key that was asked for, for another kind of JSON, encoding, and damage.
    """
    opening = _opening(member, options)
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    objects: Iterable[tuple[int, dict[str, Any]]]
    if not opening:
        report.note("empty files")
        return
    if opening == LINES:
        objects = _from_lines(filled_lines(member, options.encoding, report, check), check)
    elif opening == LIST:
        objects = enumerate(_from_list(member, characters(member, options.encoding, report)), 1)
    else:
        value = _whole(member, characters(member, options.encoding, report))
        if _is_squad(value):
            yield from _squad(member, value["data"])
            return
        objects = enumerate(_objects_in(value) or [value], 1)
    mapping = FieldMapping(options, member.name)
    for number, row in objects:
        try:
            document = mapping.document(row, default_id=f"{member.stem}:{number}", source=SOURCE)
        except ValueError as error:
            check.drop(json.dumps(row, ensure_ascii=False), number, str(error))
        else:
            yield document
    if not member.start:
        mapping.check_seen()


def json_cuts(member: Member, options: ReadOptions) -> LineCuts | None:
    """A file of lines may be cut after any."""
    return LineCuts(codec_of(member, options.encoding)) if _opening(member, options) == LINES else None


read_jsonl = FileReader(SUFFIXES, json_documents, json_cuts)


def _opening(member: Member, options: ReadOptions) -> str:
    """What a file's first block says that it is: lines, a list, or one object; "" where it is empty."""
    text = member.head.decode(codec_of(member, options.encoding), "replace").removeprefix("\ufeff")
    text = text.replace("\r", "\n").lstrip()
    if text[:1] in ("", "["):
        return LIST if text else ""
    first, newline, rest = text.partition("\n")
    if not newline and len(member.head) >= BLOCK_BYTES:  # the first line is longer than what is known of it
        return ONE if '"paragraphs"' in first else LINES
    second = rest.lstrip().partition("\n")[0]
    value = _parsed(first)
    if isinstance(value, (dict, str)):
        return ONE if not second and (_is_squad(value) or _objects_in(value)) else LINES
    return LINES if isinstance(_parsed(second), dict) else ONE


def _from_lines(rows: Iterable[tuple[int, str]], check: LineCheck) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in rows:
        value = _parsed(line)
        if isinstance(value, str):
            yield number, {"text": value}
        elif isinstance(value, dict):
            yield number, value
        else:
            check.drop(line, number, "not a JSON object")


def _from_list(member: Member, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The objects of a list, of which only the one under way is in memory."""
    text, least = "", 0
    opened = False
    for block in chain(texts, [""]):
        text += block
        at = 0
        while (at := _SEPARATORS.match(text, at).end()) < len(text):  # type: ignore[union-attr]
            if not opened:
                opened, at = True, at + 1  # the bracket that the file begins with
                continue
            if text[at] == "]":
                return
            if block and len(text) - at < least:
                break
            try:
                value, at = _DECODER.raw_decode(text, at)
            except (ValueError, RecursionError) as error:
                if not block or len(text) - at > LARGEST_OBJECT_CHARACTERS:
                    raise InputError(f"{member.name}: {_NEITHER}: {error}") from None
                least = 2 * (len(text) - at)  # so that a large object is not parsed at each block
                break
            if isinstance(value, str):
                value = {"text": value}
            if not isinstance(value, dict):
                raise InputError(f"{member.name}: a list of JSON that is {_OTHER_JSON}")
            least = 0
            yield value
        text = text[at:]
    raise InputError(f"{member.name}: the list has no end: the file is cut short")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _whole(member: Member, texts: Iterable[str]) -> dict[str, Any]:
    limit = f"one JSON value of more than {LARGEST_WHOLE_CHARACTERS >> 20} Mi characters"
    text = joined(texts, LARGEST_WHOLE_CHARACTERS, f"{member.name}: {limit}; give a value a line")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{member.name}: {_NEITHER}: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{member.name}: JSON that is {_OTHER_JSON}")
    return value


def _is_squad(value: Any) -> bool:
    data = value.get("data") if isinstance(value, dict) else None
    return isinstance(data, list) and all(isinstance(entry, dict) and "paragraphs" in entry for entry in data)


def _objects_in(value: Any) -> list[dict[str, Any]]:
    """The objects of one that only holds them, as `{"data": [{"text": ...}]}` and `{"1": {"text": ...}}` do."""
    if not isinstance(value, dict) or set(map(str.lower, value)) & _TEXT_KEYS:
        return []
    lists = [inner for inner in value.values() if isinstance(inner, list) and inner]
    found = lists[0] if len(lists) == 1 else [] if lists else list(value.values())
    return found if all(isinstance(entry, dict) for entry in found) else []


def _squad(member: Member, data: list[dict[str, Any]]) -> Iterator[Document]:
    for number, entry in enumerate(data):
        for place, paragraph in enumerate(entry["paragraphs"]):
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise InputError(f"{member.name}: data[{number}].paragraphs[{place}] has no context")
            title = str(entry.get("title") or paragraph.get("title") or "")
            yield Document(f"{member.stem}:{number}.{place}", SOURCE, paragraph["context"], title=title)
