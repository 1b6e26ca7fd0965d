"""Comments and other tables in CSV or TSV.

In: .csv files (quoted newlines, byte order mark), alone, in folders, compressed or in archives. Out: a document a row.
The columns are named by options or by their usual names; a file without a header line is not read.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import lines
from megadec.corpus.sources.files import Member, members
from megadec.corpus.sources.reading import FieldMapping, LineCheck, ReadOptions

SOURCE = "comments"
SUFFIXES = (".csv", ".tsv")
LONGEST_FIELD_CHARACTERS = 16 << 20


def read_comments(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each row. Rows with another number of fields are dropped as malformed, up to the limit.

    Raises InputError for a missing column, an open quote that never closes, another encoding, and damage.
    """
    csv.field_size_limit(LONGEST_FIELD_CHARACTERS)
    for member in members(path, SUFFIXES, options):
        try:
            yield from _rows(member, report, options)
        except csv.Error as error:
            raise InputError(f"{member.name}: not a readable table: {error}") from error


def _rows(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    delimiter = "\t" if member.path.suffix.lower() == ".tsv" else ","
    rows = csv.reader(lines(member, options.encoding, report), delimiter=delimiter)
    header = [column.strip() for column in next(rows, [])]
    if not header:
        report.note("empty files")
        return
    mapping = FieldMapping(options, header, member.name)
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    for row in filter(None, rows):
        if len(row) != len(header):
            check.drop(",".join(row), rows.line_num, f"{len(row)} fields where the header has {len(header)}")
        else:
            value = dict(zip(header, row, strict=True))
            yield mapping.document(value, default_id=f"{member.stem}:{rows.line_num}", source=SOURCE)
