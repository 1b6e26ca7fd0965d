"""Text that was taken from web pages: bits of HTML in plain text, whole pages, and what an extractor of wikis left.

In: a document with HTML in it. Out: the same with entities resolved and without markup.
"""

import re
from dataclasses import replace

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.conversion import resolve_conversion, without_shields
from megadec.corpus.clean.glossary import glossary_of
from megadec.corpus.clean.html import article_of, plain_html
from megadec.corpus.clean.variant import dominating_variant, variant_of
from megadec.corpus.clean.wiki.leftovers import drop_invisible, strip_line_markup, tidy
from megadec.corpus.clean.wiki.protect import unescape_entities
from megadec.corpus.document import Document

_PAGE = re.compile(r"\s*(?:<\?xml[^<>]*>\s*)?(?:<!doctype html|<html[\s>])", re.IGNORECASE)
_FORMULA = re.compile(r"[（(]\s*formula_\d+\s*[）)]|formula_\d+")


def clean_web(document: Document, context: CleanContext) -> Document | str:
    """The document without entities and layout tags, or the drop reason `empty`."""
    if _PAGE.match(document.text):
        return clean_page(document, context)
    text, title = plain_web(document.text, context), plain_web(document.title, context)
    return replace(document, text=text, title=title) if text.strip() else "empty"


def clean_page(document: Document, context: CleanContext) -> Document | str:
    """The article of a whole page of HTML, with the page's title where the document has none; or the reason `empty`."""
    title, text = article_of(document.text)
    title = plain_web(document.title, context) or title
    first, _, rest = text.partition("\n")
    if title and first.strip() == title:
        text = rest.strip()
    return replace(document, text=text, title=title) if text else "empty"


def clean_extracted(document: Document, context: CleanContext) -> Document | str:
    """Wikipedia's text from WikiExtractor and the like, with its variant and without what they leave in it: `-{ }-`,
    tags, entities, stand-ins for formulas, empty brackets, a first line that repeats the title; or the reason `empty`.

    The dump itself (`sources/zhwiki.py`) gives better text.
    """
    written, wanted = dominating_variant(document.text), context.wanted
    text = resolve_conversion(document.text, wanted or written, shield=bool(wanted))
    text = tidy(strip_line_markup(_FORMULA.sub("", plain_web(text, context))))
    first, _, rest = text.partition("\n")
    if document.title and without_shields(first).strip() == document.title.strip():
        text = rest.strip()
    variant, title = variant_of(text), document.title
    if wanted:
        glossary = glossary_of(document.text)
        text = glossary.convert(text, variant or written, context)
        title = glossary.convert_title(title, variant or written, context)
        context.converted = True
    text = drop_invisible(text)
    return replace(document, text=text, title=title, variant=variant) if text else "empty"


def plain_web(text: str, context: CleanContext) -> str:
    """`text` with its entities resolved, doubly escaped ones (`&amp;nbsp;`) too, without tags, scripts, comments."""
    text = plain_html(text, context.taken) if "<" in text or "&" in text else text
    return unescape_entities(unescape_entities(text))
