"""Text from web pages that was stored with bits of HTML in it.

In: a document of mostly plain text. Out: the same with entities resolved and the tags of layout gone. Only named and
numbered entities with a semicolon and a short list of tags, so that `a<b` and prices in `<>` stay.
"""

from __future__ import annotations

import re
from dataclasses import replace

from megadec.corpus.clean.protect import unescape_entities
from megadec.corpus.document import Document

_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr)\s*>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:p|div|span|font|strong|b|i|em|u|a|img|li|ul|ol|table|tbody|tr|td|th|center|h[1-6]|nowiki|small|sup|sub)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)


def clean_web(document: Document) -> Document | str:
    """The document without entities and layout tags, or the drop reason `empty`."""
    text, title = plain_web(document.text), plain_web(document.title)
    return replace(document, text=text, title=title) if text.strip() else "empty"


def plain_web(text: str) -> str:
    """`text` with its entities resolved, doubly escaped ones (`&amp;nbsp;`) too, and without layout tags."""
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub("\n", text))
    return unescape_entities(unescape_entities(text))
