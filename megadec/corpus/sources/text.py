"""Plain text files: a file is a document, or so many lines are.

In: .txt files, alone, in folders, compressed or in archives. Out: documents; lines are joined by newlines. A file that
is one document is read whole, so there is a limit to its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from megadec.corpus.document import Document
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources.encoding import filled_lines, whole_text
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

SUFFIXES = (".txt", ".text")


def read_text(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Documents of a plain text file, a folder or an archive of them.

    With `options.lines_per_document` lines are grouped, blank ones left out; the last group of a file may be shorter.
    Raises InputError for another encoding, for damage, and for a document of more than 64 Mi characters.
    """
    for member in members(path, SUFFIXES, options):
        if options.lines_per_document:
            filled = filled_lines(member, options.encoding, report)
            while group := list(islice(filled, options.lines_per_document)):
                yield Document(f"{member.stem}:{group[0][0]}", "text", "\n".join(line.strip() for _, line in group))
        else:
            yield Document(member.stem, "text", whole_text(member, options, report))
