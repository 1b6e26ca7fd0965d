"""Wikipedia text that another tool extracted: what such tools leave behind is taken out.

In: a document of plain text from WikiExtractor or a question-answering set. Out: the same without leftover -{ }-
markup, empty brackets where a template stood, and a first line that repeats the title. Trade-off: only leftovers that
are certain; the dump itself through `sources.zhwiki` gives better text.
"""

from __future__ import annotations

import re
from dataclasses import replace

from megadec.corpus.clean.conversion import resolve_conversion
from megadec.corpus.clean.variant import variant_of
from megadec.corpus.clean.web import plain_web
from megadec.corpus.document import Document

_EMPTY_BRACKETS = re.compile("（[\\s，、；;,：:]*）|\\([\\s，、；;,：:]*\\)")


def clean_extracted(document: Document) -> Document | str:
    """The document without leftovers of wiki markup, or the drop reason `empty`."""
    text = document.text
    if "-{" in text:
        text = resolve_conversion(text, variant_of(text))
    text = _EMPTY_BRACKETS.sub("", plain_web(text)).strip()
    first, _, rest = text.partition("\n")
    if document.title and first.strip() == document.title.strip():
        text = rest.strip()
    return replace(document, text=text) if text else "empty"
