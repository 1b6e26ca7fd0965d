"""Text that was taken from web pages, and still holds bits of HTML, or what an extractor of wiki pages left behind.

In: a document of mostly plain text. Out: the same with entities resolved and the tags of layout gone. Only named and
numbered entities with a semicolon and a short list of tags, so that `a<b` and prices in `<>` stay.
"""

import re
from dataclasses import replace

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.conversion import resolve_conversion, without_shields
from megadec.corpus.clean.glossary import glossary_of
from megadec.corpus.clean.variant import dominating_variant, variant_of
from megadec.corpus.clean.wiki.leftovers import drop_invisible, strip_line_markup, tidy
from megadec.corpus.clean.wiki.protect import unescape_entities
from megadec.corpus.document import Document

_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr)\s*>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:p|div|span|font|strong|b|i|em|u|a|img|li|ul|ol|table|tbody|tr|td|th|center|h[1-6]|nowiki|small|sup|sub)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"[（(]\s*formula_\d+\s*[）)]|formula_\d+")


def clean_web(document: Document, context: CleanContext) -> Document | str:
    """The document without entities and layout tags, or the drop reason `empty`."""
    text, title = plain_web(document.text), plain_web(document.title)
    return replace(document, text=text, title=title) if text.strip() else "empty"


def clean_extracted(document: Document, context: CleanContext) -> Document | str:
    """Wikipedia's text from WikiExtractor and the like, with its variant and without what they leave in it: `-{ }-`,
    tags, entities, stand-ins for formulas, empty brackets, a first line that repeats the title; or the reason `empty`.

    The dump itself (`sources/zhwiki.py`) gives better text.
    """
    written, wanted = dominating_variant(document.text), context.wanted
    text = resolve_conversion(document.text, wanted or written, shield=bool(wanted))
    text = tidy(strip_line_markup(_FORMULA.sub("", plain_web(text))))
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


def plain_web(text: str) -> str:
    """`text` with its entities resolved, doubly escaped ones (`&amp;nbsp;`) too, and without layout tags."""
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub("\n", text))
    return unescape_entities(unescape_entities(text))
