"""What WikiExtractor writes: folders AA/wiki_00, ... of `<doc id= url= title=>` elements or of JSON lines.

In: such files, alone, in folders, compressed or in archives, and other JSON with Wikipedia's text (SQuAD's form). Out:
a document an article; what the extractor left behind is made plain by `clean.web`.
"""

import html
import re
from collections.abc import Iterator

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.cuts import LineCuts
from megadec.corpus.sources.encoding import joined, lines
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.jsonl import SOURCE, SUFFIXES, json_cuts, json_documents
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import LineCheck, ReadOptions

LARGEST_ARTICLE_CHARACTERS = 64 << 20
# A title is written as it is, quotation marks too.
_BEGIN = re.compile(r'<doc id="([^"]*)"(?: revid="[^"]*")? url="([^"]*)" title="(.*)">\s*$')
_ATTRIBUTES_ONLY = re.compile(r'<doc(?:\s+[a-z_]+="[^"]*")+\s*>\s*$')
_ATTRIBUTE = re.compile(r'([a-z_]+)="([^"]*)"')
_END = "</doc>"


def article_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each `<doc>`, or what `json_documents` gives. Lines between elements are dropped as malformed.

    Raises InputError for a file cut inside an element, another encoding, and other kinds of files.
    """
    if not _is_markup(member):
        yield from json_documents(member, report, options)
        return
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    too_long = f"{member.name}: a <doc> of more than {LARGEST_ARTICLE_CHARACTERS >> 20} Mi characters"
    rows = lines(member, options.encoding, report, check)
    for number, line in enumerate(rows, member.line):
        if begin := _opened(line):
            identifier, url, title = begin
            text = joined(_until_end(rows, member, title), LARGEST_ARTICLE_CHARACTERS, too_long)
            yield Document(identifier, SOURCE, text.strip(), title=html.unescape(title), url=url)
        elif line.strip():
            check.drop(line, number, "text outside of <doc>")


def _cuts(member: Member, options: ReadOptions) -> LineCuts | None:
    return None if _is_markup(member) else json_cuts(member, options)


def _is_markup(member: Member) -> bool:
    return member.head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<doc ")


def _opened(line: str) -> tuple[str, str, str] | None:
    """The id, address and title of the `<doc>` that a line begins, in whatever order they are."""
    if match := _BEGIN.match(line):
        return match[1], match[2], match[3]
    if not _ATTRIBUTES_ONLY.match(line):
        return None
    values = dict(_ATTRIBUTE.findall(line))
    return values.get("id", ""), values.get("url", ""), values.get("title", "")


def _until_end(rows: Iterator[str], member: Member, title: str) -> Iterator[str]:
    for line in rows:
        if line.rstrip() == _END:
            return
        yield line
    raise InputError(f"{member.name}: the <doc> of {title!r} has no end: the file is cut short")


# The files have no suffix of their own.
read_wikiextractor = FileReader((*SUFFIXES, "", ".txt", ".xml"), article_documents, _cuts)
