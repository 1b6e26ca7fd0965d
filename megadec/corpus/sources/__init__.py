"""The table of sources: how each kind of raw input is read, what makes its text plain, which quality rules suit it.

To add a source, write a reader (`pieces.Reader`; most are a `FileReader`) in a file of this folder and add one line to
SOURCES. What is slow to import is imported inside the function that needs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from megadec.common.errors import check_choice
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.markdown import clean_markdown
from megadec.corpus.clean.web import clean_extracted, clean_page, clean_web
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.document import Document
from megadec.corpus.sources.comments import read_comments
from megadec.corpus.sources.html import read_html
from megadec.corpus.sources.jsonl import read_jsonl
from megadec.corpus.sources.mediawiki import LICENCE
from megadec.corpus.sources.parquet import read_parquet, read_prepared
from megadec.corpus.sources.pieces import Reader
from megadec.corpus.sources.sgml import read_sgml
from megadec.corpus.sources.text import read_markdown, read_text
from megadec.corpus.sources.thucnews import clean_news, read_thucnews
from megadec.corpus.sources.wikiextractor import read_wikiextractor
from megadec.corpus.sources.zhwiki import read_zhwiki

Clean = Callable[[Document, CleanContext], Document | str]


@dataclass(frozen=True)
class Source:
    """A kind of raw input.

    read: the documents of a file or folder, at once or piece by piece. clean: the document with plain text, or the
    reason to drop it; what it takes out is counted in its context; None: the text is plain already. rules: the quality
    rules; rules_of: other ones for documents that the reader gives another source than this. prepared: an earlier run
    has cleaned and judged its documents. social: they are comments, with forms of their own. decoded: its texts may
    have been decoded in another encoding than their own before they came here.
    """

    read: Reader
    clean: Clean | None = None
    rules: str = "article"
    rules_of: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""
    prepared: bool = False
    social: bool = False
    decoded: bool = True


SOURCES: dict[str, Source] = {
    # MediaWiki export (.xml, .bz2, multistream)
    "zhwiki": Source(read_zhwiki, clean_wikitext, decoded=False),
    # Wikipedia text that was extracted before: JSON lines of WikiExtractor, or paragraphs in SQuAD form
    "wikiextractor": Source(read_wikiextractor, clean_extracted, licence=LICENCE),
    # category folders of .txt, or title<TAB>label lists, whose documents have the source titles
    "thucnews": Source(read_thucnews, clean_news, rules_of={"titles": "short"}),
    # CSV or TSV with a header line
    "comments": Source(read_comments, clean_web, rules="short", social=True),
    # a JSON object a line, or paragraphs in SQuAD form
    "jsonl": Source(read_jsonl, clean_web),
    # Parquet with a column of text, or documents of an earlier run
    "parquet": Source(read_parquet),
    # plain text: a file or so many lines a document
    "text": Source(read_text),
    # Markdown with HTML in it: a file or a section a document
    "markdown": Source(read_markdown, clean_markdown),
    # Sogou Lab news: <doc> elements without a root
    "sgml": Source(read_sgml, clean_web),
    # whole web pages
    "html": Source(read_html, clean_page),
    # documents of an earlier run
    "documents": Source(read_prepared, rules="none", prepared=True, decoded=False),
}


def find_source(name: str) -> Source:
    """The source called `name`. Raises ConfigError with the nearest name for one that does not exist."""
    check_choice("source", name, SOURCES)
    return SOURCES[name]
