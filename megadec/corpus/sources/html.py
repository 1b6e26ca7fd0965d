"""Whole web pages: a file is a page, a page is a document.

In: .html files, alone, in folders, compressed or in archives. Out: documents of raw HTML, of which `clean.web` finds
the article. A page's encoding is the one that it declares, unless another is asked for.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import ENCODINGS, whole_text
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.reading import ReadOptions

SOURCE = "html"
SUFFIXES = (".html", ".htm", ".xhtml", ".shtml")
DECLARED_WITHIN_BYTES = 4096
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w-]{1,20})""", re.IGNORECASE)


def page_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """The document of a page. Raises InputError for a page that is not in its encoding and for damage."""
    if ENCODINGS.get(options.encoding.lower()) in ("utf-8", "auto"):
        declared = _CHARSET.search(member.head[:DECLARED_WITHIN_BYTES])
        name = declared[1].decode("ascii", "replace").lower() if declared else ""
        options = replace(options, encoding=name if name in ENCODINGS else "auto")
    yield Document(member.stem, SOURCE, whole_text(member, options, report), label=member.path.parent.name)


read_html = FileReader(SUFFIXES, page_documents)
