"""Files of plain text and of Markdown: a file is a document, or parts of it are.

In: .txt or .md files, alone, in folders, compressed or in archives. Out: documents; those of raw Markdown are made
plain by `clean.markdown`. A file that is one document is read whole, so there is a limit to its size.
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import filled_lines, whole_text
from megadec.corpus.sources.files import members
from megadec.corpus.sources.reading import ReadOptions

TEXT, TEXT_SUFFIXES = "text", (".txt", ".text")
MARKDOWN, MARKDOWN_SUFFIXES = "markdown", (".md", ".markdown")
_HEADING = re.compile(r"(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"[ \t]*(```+|~~~+)")


def read_text(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Documents of a plain text file, a folder or an archive of them.

    With `options.lines_per_document` lines are grouped, blank ones left out; the last group of a file may be shorter.
    Raises InputError for another encoding, for damage, and for a document of more than 64 Mi characters.
    """
    for member in members(path, TEXT_SUFFIXES, options):
        if options.lines_per_document:
            filled = filled_lines(member, options.encoding, report)
            while group := list(islice(filled, options.lines_per_document)):
                yield Document(f"{member.stem}:{group[0][0]}", TEXT, "\n".join(line.strip() for _, line in group))
        else:
            yield Document(member.stem, TEXT, whole_text(member, options, report))


def read_markdown(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Documents at `path`; the title is the first heading, and the label the folder that holds the file.

    With `options.split_level` a document begins at each heading down to that level. Raises InputError for another
    encoding, damage, and a file of more than 64 Mi characters.
    """
    for member in members(path, MARKDOWN_SUFFIXES, options):
        text = whole_text(member, options, report)
        label = member.path.parent.name
        if not options.split_level:
            title = next((title for level, title, _ in sections(text, 1) if level), "")
            yield Document(member.stem, MARKDOWN, text, title=title, label=label)
            continue
        for number, (_, title, body) in enumerate(sections(text, options.split_level)):
            yield Document(f"{member.stem}#{number}", MARKDOWN, body, title=title, label=label)


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
