"""Takes out what WikiExtractor and the like leave in Wikipedia's text: `-{ }-`, tags, entities, stand-ins for formulas,
empty brackets, a first line that repeats the title. The dump itself (`sources/zhwiki.py`) gives better text."""

from __future__ import annotations

import re
from dataclasses import replace

from megadec.corpus.clean.conversion import resolve_conversion
from megadec.corpus.clean.leftovers import drop_invisible, strip_line_markup, tidy
from megadec.corpus.clean.variant import dominating_variant, variant_of
from megadec.corpus.clean.web import plain_web
from megadec.corpus.document import Document

_FORMULA = re.compile(r"[（(]\s*formula_\d+\s*[）)]|formula_\d+")


def clean_extracted(document: Document) -> Document | str:
    """The document without leftovers of wiki markup and with its variant, or the drop reason `empty`."""
    text = resolve_conversion(document.text, dominating_variant(document.text))
    text = drop_invisible(tidy(strip_line_markup(_FORMULA.sub("", plain_web(text)))))
    first, _, rest = text.partition("\n")
    if document.title and first.strip() == document.title.strip():
        text = rest.strip()
    return replace(document, text=text, variant=variant_of(text)) if text else "empty"
