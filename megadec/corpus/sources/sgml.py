"""The Sogou Lab news form: `<doc>` elements without a root, not XML (bare &), one after the other.

In: .dat, .txt or .sgml files. Out: a document an element, with its address and title. The five known tags are found by
pattern; an XML parser would refuse the files.
"""

import html
import re
from collections.abc import Iterator

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import joined, lines
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import LineCheck, ReadOptions

SOURCE = "sgml"
SUFFIXES = (".dat", ".txt", ".sgml", ".xml")
LARGEST_ELEMENT_CHARACTERS = 16 << 20
_PART = re.compile(r"<(url|docno|contenttitle|content)>(.*?)</\1>", re.DOTALL)
# Sogou's converter put this private-use character where a paragraph began.
_PARAGRAPH = "\ue40c"
_BEGIN = re.compile(r"^\s*<doc>\s*$", re.MULTILINE)


def sgml_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """A document for each `<doc>`. What lies between them, and one without an end before the next, is malformed.

    Raises InputError for a file without any, one cut inside one, another encoding.
    """
    found = False
    for text in _elements(member, report, options):
        found = True
        yield _document(member, text)
    if not found:
        raise InputError(f"{member.name}: no <doc> element in it")


read_sgml = FileReader(SUFFIXES, sgml_documents)


def _elements(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[str]:
    too_long = f"{member.name}: a <doc> of more than {LARGEST_ELEMENT_CHARACTERS >> 20} Mi characters"
    check = LineCheck(member.name, SOURCE, report, options.malformed_fraction)
    rows = lines(member, options.encoding, report, check)
    for number, line in enumerate(rows, 1):
        if line.strip() == "<doc>":
            element = joined(_until_end(rows, member), LARGEST_ELEMENT_CHARACTERS, too_long)
            *unclosed, last = _BEGIN.split(element)
            for part in unclosed:
                check.drop(part, number, "a <doc> without an end")
            yield last
        elif line.strip():
            check.drop(line, number, "text outside of <doc>")


def _until_end(rows: Iterator[str], member: Member) -> Iterator[str]:
    """The lines up to the next `</doc>`."""
    for line in rows:
        if line.strip() == "</doc>":
            return
        yield line
    raise InputError(f"{member.name}: the last <doc> has no end: the file is cut short")


def _document(member: Member, text: str) -> Document:
    parts = {name: html.unescape(value) for name, value in _PART.findall(text)}
    number, title = parts.get("docno") or member.path.stem, parts.get("contenttitle", "")
    text = parts.get("content", "").replace(_PARAGRAPH, "\n")
    return Document(number, SOURCE, text, title, url=parts.get("url", ""))
