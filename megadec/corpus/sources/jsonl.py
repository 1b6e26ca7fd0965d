"""JSON: one object a line, or a whole file of paragraphs in SQuAD form.

In: .jsonl and .json files, alone, in folders, compressed or in archives. Out: a document a line or a paragraph. What a
.json file is, is decided by its first line: an object that is whole there begins a file of lines.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import filled_lines, joined
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
    filled = filled_lines(member, options.encoding, report)
    head = list(islice(filled, 2))
    rows = chain(head, filled)
    if not head:
        report.note("empty files")
        return
    first = _parsed(head[0][1])
    if isinstance(first, dict) and not (len(head) == 1 and _is_squad(first)):
        objects = _from_lines(rows, LineCheck(member.name, SOURCE, report, options.malformed_fraction))
    else:
        value = _whole(member, (line for _, line in rows))
        if _is_squad(value):
            yield from _squad(member, value["data"])
            return
        if not (isinstance(value, list) and value and all(isinstance(row, dict) for row in value)):
            found = "JSON that is neither objects nor paragraphs in SQuAD form (data/paragraphs)"
            raise InputError(f"{member.name}: {found}")
        objects = enumerate(value, 1)
    mapping: FieldMapping | None = None
    for number, row in objects:
        mapping = mapping or FieldMapping(options, list(row), member.name)
        yield mapping.document(row, default_id=f"{member.stem}:{number}", source=SOURCE)


def _from_lines(rows: Iterable[tuple[int, str]], check: LineCheck) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in rows:
        value = _parsed(line)
        if isinstance(value, dict):
            yield number, value
        else:
            check.drop(line, number, "not a JSON object")


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _whole(member: Member, rows: Iterable[str]) -> Any:
    limit = f"one JSON value of more than {LARGEST_WHOLE_CHARACTERS >> 20} Mi characters"
    text = joined(rows, LARGEST_WHOLE_CHARACTERS, f"{member.name}: {limit}; give a value a line")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{member.name}: neither a JSON object a line nor one JSON value: {error}") from None


def _is_squad(value: Any) -> bool:
    data = value.get("data") if isinstance(value, dict) else None
    return isinstance(data, list) and all(isinstance(entry, dict) and "paragraphs" in entry for entry in data)


def _squad(member: Member, data: list[dict[str, Any]]) -> Iterator[Document]:
    for number, entry in enumerate(data):
        for place, paragraph in enumerate(entry["paragraphs"]):
            if not isinstance(paragraph, dict) or not isinstance(paragraph.get("context"), str):
                raise InputError(f"{member.name}: data[{number}].paragraphs[{place}] has no context")
            title = str(entry.get("title") or paragraph.get("title") or "")
            yield Document(f"{member.stem}:{number}.{place}", SOURCE, paragraph["context"], title=title)
