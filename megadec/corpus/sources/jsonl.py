"""JSON: one object a line, or a whole file of paragraphs in SQuAD form.

In: .jsonl and .json files, alone, in folders, compressed or in archives. Out: a document a line or a paragraph. What a
.json file is, is decided by its first line: an object that is whole there begins a file of lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources.encoding import lines
from megadec.corpus.sources.files import Member, members
from megadec.corpus.sources.reading import FieldMapping, LineCheck, ReadOptions

SOURCE = "jsonl"
SUFFIXES = (".jsonl", ".json", ".ndjson")
LARGEST_WHOLE_CHARACTERS = 256 << 20


def read_jsonl(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each line that is an object, or for each paragraph of a SQuAD-form file (its `context`).

    A line that is not an object is dropped as malformed, up to the limit; an empty file is noted. Raises InputError for
    a missing key in the first object, for another kind of JSON, another encoding, and damage.
    """
    for member in members(path, SUFFIXES, options):
        yield from _documents(member, report, options)


def _documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    numbered = enumerate(lines(member, options.encoding, report), 1)
    rows = ((number, line) for number, line in numbered if line.strip())
    head = list(islice(rows, 2))
    if not head:
        report.note("empty files")
        return
    value = _parsed(head[0][1])
    if isinstance(value, dict) and not (len(head) == 1 and _is_squad(value)):
        yield from _from_lines(member, chain(head, rows), report, options)
    else:
        yield from _from_whole(member, _whole(member, chain(head, rows)), report, options)


def _from_lines(
    member: Member, rows: Iterable[tuple[int, str]], report: CorpusReport, options: ReadOptions
) -> Iterator[Document]:
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    mapping: FieldMapping | None = None
    for number, line in rows:
        value = _parsed(line)
        if not isinstance(value, dict):
            check.drop(line, number, "not a JSON object")
            continue
        mapping = mapping or FieldMapping(options, list(value), member.name)
        report.read()
        yield _document(mapping, value, member, number)


def _document(mapping: FieldMapping, value: Mapping[str, Any], member: Member, number: int) -> Document:
    return mapping.document(value, default_id=f"{member.stem}:{number}", source=SOURCE)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _whole(member: Member, rows: Iterable[tuple[int, str]]) -> Any:
    parts: list[str] = []
    size = 0
    for _, line in rows:
        parts.append(line)
        size += len(line)
        if size > LARGEST_WHOLE_CHARACTERS:
            limit = LARGEST_WHOLE_CHARACTERS >> 20
            raise InputError(f"{member.name}: one JSON value of more than {limit} Mi characters; give a value a line")
    try:
        return json.loads("".join(parts))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{member.name}: neither a JSON object a line nor one JSON value: {error}") from None


def _is_squad(value: Any) -> bool:
    data = value.get("data") if isinstance(value, dict) else None
    return isinstance(data, list) and all(isinstance(entry, dict) and "paragraphs" in entry for entry in data)


def _from_whole(member: Member, value: Any, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    if _is_squad(value):
        yield from _squad(member, value["data"], report)
    elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        mapping = FieldMapping(options, list(value[0]), member.name)
        for number, row in enumerate(value, 1):
            report.read()
            yield _document(mapping, row, member, number)
    else:
        raise InputError(f"{member.name}: JSON that is neither objects nor paragraphs in SQuAD form (data/paragraphs)")


def _squad(member: Member, data: list[dict[str, Any]], report: CorpusReport) -> Iterator[Document]:
    for number, entry in enumerate(data):
        for place, paragraph in enumerate(entry["paragraphs"]):
            report.read()
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise InputError(f"{member.name}: data[{number}].paragraphs[{place}] has no context")
            title = str(entry.get("title") or paragraph.get("title") or "")
            yield Document(f"{member.stem}:{number}.{place}", SOURCE, paragraph["context"], title=title)
