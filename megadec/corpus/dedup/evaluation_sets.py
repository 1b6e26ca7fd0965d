"""The texts of evaluation sets, whatever their form: rows of tables, JSON of any depth, a text a line.

In: files, folders or archives. Out: one text after another. What is asked and what is read counts; answers, choices,
labels and ids do not, for they are words that any text holds.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.errors import InputError
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import lines
from megadec.corpus.sources.files import Member, members, reading
from megadec.corpus.sources.reading import ReadOptions

# Columns and keys of texts in public evaluation sets (CMMLU, C-Eval, C3, CMRC, DRCD, CLUE, THUCNews, ...), lower case.
_TEXT_KEYS = """
text content review comment sentence sentence1 sentence2 sentences body title context passage article paragraph
paragraphs question query premise hypothesis problem prompt instruction input story document abst abstract summary desc
text1 text2 dialogue src tgt target 正文 内容 评论 标题 题目 问题 文本 题干
"""
_ANSWER_KEYS = "choice choices options a b c d e answer answers label labels id 选项 答案"
TEXT_KEYS, ANSWER_KEYS = (frozenset(names.split()) for names in (_TEXT_KEYS, _ANSWER_KEYS))


def evaluation_texts(path: Path) -> Iterator[str]:
    """The texts of a set: .csv, .tsv, .json, .jsonl, .parquet, .arrow, else a text a line and its part before a tab.

    A table or an object without a key that is known to hold text gives all its strings. Raises InputError for a file
    that cannot be read, and for a path without any text.
    """
    found = False
    for member in members(path, (*_READERS, ".txt"), ReadOptions()):
        read = _READERS.get(member.path.suffix.lower(), _lines)
        try:
            for text in filter(str.strip, read(member)):
                found = True
                yield text
        except (ValueError, csv.Error) as error:
            raise InputError(f"{member.name}: not a readable evaluation set: {error}") from error
    if not found:
        raise InputError(f"{path}: no text of an evaluation set in it")


def _lines(member: Member) -> Iterator[str]:
    for line in lines(member, "auto", CorpusReport()):
        yield line
        if text := line.rpartition("\t")[0]:
            yield text


def _table(member: Member) -> Iterator[str]:
    delimiter = "\t" if member.path.suffix.lower() == ".tsv" else ","
    rows = csv.reader(lines(member, "auto", CorpusReport()), delimiter=delimiter)
    header = next(rows, [])
    if not any(column.strip().lower() in TEXT_KEYS for column in header):
        yield from header  # no header line: a row like the others
    yield from _texts_of(dict(zip(header, row, strict=False)) for row in rows)


def _json(member: Member) -> Iterator[str]:
    """JSON lines, or one value that may stand on many lines."""
    text = "\n".join(lines(member, "auto", CorpusReport()))
    try:
        yield from _texts_of([json.loads(text)])
    except json.JSONDecodeError:
        yield from _texts_of(json.loads(line) for line in text.split("\n") if line.strip())


def _parquet(member: Member) -> Iterator[str]:
    return _arrow_table(member, lambda data: pq.ParquetFile(data).iter_batches())


def _arrow(member: Member) -> Iterator[str]:
    def batches(data: pa.BufferReader) -> Iterator[pa.RecordBatch]:
        try:
            file = pa.ipc.open_file(data)
        except pa.ArrowInvalid:
            data.seek(0)
            return iter(pa.ipc.open_stream(data))
        return (file.get_batch(number) for number in range(file.num_record_batches))

    return _arrow_table(member, batches)


def _arrow_table(member: Member, batches: Callable[[pa.BufferReader], Iterable[pa.RecordBatch]]) -> Iterator[str]:
    with reading(member.name):
        for batch in batches(pa.BufferReader(member.file.read())):
            yield from _texts_of(batch.to_pylist())


_READERS: dict[str, Callable[[Member], Iterator[str]]] = {
    ".csv": _table,
    ".tsv": _table,
    ".json": _json,
    ".jsonl": _json,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


def _texts_of(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        known = list(_strings(value, "", TEXT_KEYS.__contains__))
        yield from known or _strings(value, "", lambda key: key not in ANSWER_KEYS)


def _strings(value: Any, key: str, chosen: Callable[[str], bool]) -> Iterator[str]:
    """The strings below `value` whose nearest key is chosen."""
    if isinstance(value, str):
        if chosen(key):
            yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, str(name).strip().lower(), chosen)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, key, chosen)
