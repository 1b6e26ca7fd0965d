"""Comments and other tables in CSV or TSV.

In: .csv files (quoted newlines, byte order mark; semicolons or tabs where the header line has no comma), .tsv files
(a row a line, quotation marks are characters), alone, in folders, compressed or in archives. Out: a document a row. The
columns are named by options or by their usual names; a file without a header line is not read.
"""

import csv
from collections.abc import Iterator, Sequence
from typing import Any

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.cuts import LineCuts
from megadec.corpus.sources.encoding import codec_of, lines
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import FieldMapping, LineCheck, ReadOptions

SOURCE = "comments"
SUFFIXES = (".csv", ".tsv")
LONGEST_HEADER_CHARACTERS = 4096
LONGEST_FIELD_CHARACTERS = 16 << 20
LEAST_SWALLOWED = 3  # lines, each of which looks like a row: a quote that opens there was not meant as one
NO_END = "a quote that opens there never closes; --csv_quotes no reads quotes as characters"


def table_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each row. Rows with another number of fields, and rows of which a quote that was not meant as one
    made a single field, are dropped as malformed, up to the limit.

    Raises InputError for a missing column, an open quote that never closes, another encoding, and damage.
    """
    csv.field_size_limit(LONGEST_FIELD_CHARACTERS)
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    form = _form(member, options)
    rows = _rows(member, lines(member, options.encoding, report, check), form)
    header = _header(member, options, form) if member.start else next((row for _, row, _ in rows), [])
    if not header:
        report.note("empty files")
        return
    columns = [column.strip() for column in header]
    mapping = FieldMapping(options, member.name, columns)
    for number, row, raw in rows:
        if len(raw) > LEAST_SWALLOWED and all(line.count(form["delimiter"]) == len(columns) - 1 for line in raw[1:-1]):
            report.note("quotes across rows read as characters")
            fields_of = (line.rstrip("\n").split(form["delimiter"]) for line in raw)
            found = list(enumerate(fields_of, number - len(raw) + 1))
        else:
            found = [(number, row)]
        for line, fields in found:
            if len(fields) != len(columns):
                check.drop(",".join(fields), line, f"{len(fields)} fields where the header has {len(columns)}")
            else:
                value = dict(zip(columns, fields, strict=True))
                yield mapping.document(value, default_id=f"{member.stem}:{line}", source=SOURCE)


def _cuts(member: Member, options: ReadOptions) -> LineCuts | None:
    quotes = _form(member, options)["quoting"] != csv.QUOTE_NONE
    return LineCuts(codec_of(member, options.encoding), unless=b'"' if quotes else b"")


read_comments = FileReader(SUFFIXES, table_documents, _cuts)


def _form(member: Member, options: ReadOptions) -> dict[str, Any]:
    tabs = member.path.suffix.lower() == ".tsv"
    quotes = not tabs if options.csv_quotes == "auto" else options.csv_quotes == "yes"
    header = _first_line(member, options)
    delimiter = "\t" if tabs else next((mark for mark in ",\t;" if mark in header), ",")
    return {"delimiter": delimiter, "quoting": csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE}


def _header(member: Member, options: ReadOptions, form: dict[str, Any]) -> list[str]:
    """The header line of a file of which a later part is read."""
    return next(filter(None, csv.reader(_beginning(member, options).splitlines(), **form)), [])


def _first_line(member: Member, options: ReadOptions) -> str:
    return next(filter(str.strip, _beginning(member, options)[:LONGEST_HEADER_CHARACTERS].splitlines()), "")


def _beginning(member: Member, options: ReadOptions) -> str:
    return member.head.decode(codec_of(member, options.encoding), "replace").removeprefix("\ufeff")


def _rows(member: Member, texts: Iterator[str], form: dict[str, Any]) -> Iterator[tuple[int, list[str], Sequence[str]]]:
    """(number of its last line, fields, lines) of each row that is not blank."""
    raw: list[str] = []
    ended = False

    def recorded() -> Iterator[str]:
        nonlocal ended
        for line in texts:
            raw.append(line)
            yield line
        ended = True

    number = member.line - 1
    reader = csv.reader(recorded(), **form)
    while True:
        raw.clear()
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{member.name}: line {number + 1}: not a readable table: {error}; {NO_END}") from error
        if row is None:
            return
        if ended:  # the reader looks past the lines of a row only where a quote is open
            raise InputError(f"{member.name}: line {number + 1}: {NO_END}")
        number += len(raw)
        if row:
            yield number, row, raw
