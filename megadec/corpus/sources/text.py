"""Plain text files: a file is a document, or so many lines are.

In: .txt files, alone, in folders, compressed or in archives. Out: documents; lines are joined by newlines. A file that
is one document is read whole, so there is a limit to its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from megadec.corpus.document import Document
from megadec.corpus.parallel import chunks_of
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources.encoding import decode, lines
from megadec.corpus.sources.files import Member, members, read_whole
from megadec.corpus.sources.reading import ReadOptions

SUFFIXES = (".txt", ".text")
LARGEST_DOCUMENT_BYTES = 64 << 20


def read_text(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Documents of a plain text file, a folder or an archive of them.

    With `options.lines_per_document` lines are grouped, blank ones left out; the last group of a file may be shorter.
    Raises InputError for another encoding, for damage, and for a document of more than 64 MiB.
    """
    for member in members(path, SUFFIXES, options):
        if options.lines_per_document:
            yield from _grouped(member, report, options)
        else:
            text = decode(member, read_whole(member, LARGEST_DOCUMENT_BYTES), options.encoding, report)
            report.read()
            yield Document(member.stem, "text", text)


def _grouped(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    numbered = enumerate(lines(member, options.encoding, report), 1)
    filled = ((number, line.strip()) for number, line in numbered if line.strip())
    for group in chunks_of(filled, options.lines_per_document):
        report.read()
        yield Document(f"{member.stem}:{group[0][0]}", "text", "\n".join(line for _, line in group))
