"""Files of plain text and of Markdown: a file is a document, or parts of it are.

In: .txt or .md files, alone, in folders, compressed or in archives. Out: documents; those of raw Markdown are made
plain by `clean.markdown`. A file that is one document is read whole, so there is a limit to its size.
"""

import re
from collections.abc import Iterator
from itertools import islice

from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.cuts import LineCuts
from megadec.corpus.sources.encoding import codec_of, filled_lines, whole_text
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import LineCheck, ReadOptions

TEXT, TEXT_SUFFIXES = "text", (".txt", ".text")
MARKDOWN, MARKDOWN_SUFFIXES = "markdown", (".md", ".markdown")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")


def text_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """The document of a plain text file, or its documents.

    With `options.lines_per_document` lines are grouped, blank ones left out; the last group of a file may be shorter.
    Raises InputError for another encoding, for damage, and for a document of more than 64 Mi characters.
    """
    if not options.lines_per_document:
        yield Document(member.stem, TEXT, whole_text(member, options, report))
        return
    check = LineCheck(member.name, TEXT, report, options.malformed_fraction)
    filled = filled_lines(member, options.encoding, report, check)
    while group := list(islice(filled, options.lines_per_document)):
        yield Document(f"{member.stem}:{group[0][0]}", TEXT, "\n".join(line.strip() for _, line in group))


def text_cuts(member: Member, options: ReadOptions) -> LineCuts | None:
    """A file may be cut between its documents."""
    lines = options.lines_per_document
    return LineCuts(codec_of(member, options.encoding), filled_lines=lines) if lines else None


def markdown_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """The documents of a file; the title is the first heading, and the label the folder that holds the file.

    With `options.split_level` a document begins at each heading down to that level. Raises InputError for another
    encoding, damage, and a file of more than 64 Mi characters.
    """
    text = whole_text(member, options, report)
    label = member.path.parent.name
    if not options.split_level:
        title = next((title for level, title, _ in sections(text, 1) if level), "")
        yield Document(member.stem, MARKDOWN, text, title=title, label=label)
        return
    for number, (_, title, body) in enumerate(sections(text, options.split_level)):
        yield Document(f"{member.stem}#{number}", MARKDOWN, body, title=title, label=label)


read_text = FileReader(TEXT_SUFFIXES, text_documents, text_cuts)
read_markdown = FileReader(MARKDOWN_SUFFIXES, markdown_documents)


def sections(text: str, deepest: int) -> Iterator[tuple[int, str, str]]:
    """(level, heading, body) of each section down to the level `deepest`; what stands before the first has level 0.

    Headings are found line by line with an eye on code fences, not by a full parser.
    """
    level, title, body = 0, "", list[str]()
    fence = ""
    for line in text.splitlines(keepends=True):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence):
            fence = ""
        heading = None if fence else _HEADING.match(line)
        if heading and len(heading.group(1)) <= deepest:
            if level or "".join(body).strip():
                yield level, title, "".join(body)
            level, title, body = len(heading.group(1)), heading.group(2), []
        else:
            body.append(line)
    if level or "".join(body).strip():
        yield level, title, "".join(body)
