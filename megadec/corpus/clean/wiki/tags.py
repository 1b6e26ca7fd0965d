"""What the HTML tags of layout show: line breaks, raised digits, the reading of ruby characters; others nothing.

In: a tag and the two pieces that follow it. Only tags that a page may hold are tags; `a <b` and `<作者>` are text.
"""

import re

from megadec.corpus.clean.wiki.protect import LINE_BREAK
from megadec.corpus.clean.wiki.tokens import tag_name

_BLOCK_NAMES = "br p div li ul ol dl dd dt blockquote center hr poem h1 h2 h3 h4 h5 h6"
_BLOCKS = frozenset(_BLOCK_NAMES.split())
_INLINE_NAMES = """
    abbr b bdi bdo big cite code data del dfn em font i img ins kbd link mark meta nobr noinclude onlyinclude
    nowiki q rb ref references rp rt rtc ruby s samp section small span strike strong sub sup time tt u var wbr
    math source syntaxhighlight pre gallery score timeline a translate tvar includeonly chem ce tbody thead tfoot
    colgroup col templatestyles indicator graph hiero imagemap
"""
_INLINE = frozenset(_INLINE_NAMES.split())
TABLE_PARTS = frozenset(("table", "tr", "td", "th", "caption"))
_HIDDEN = re.compile(r"display\s*:\s*none", re.I)
_NUMBER = re.compile(r"\s*[-+−0-9]{1,6}\s*")
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")


def show_tag(tag: str, text: str, following: str) -> tuple[str, bool]:
    """What a tag shows, and whether `text` and the mark `following` after it are used up with it."""
    name = tag_name(tag)
    plain = name.removeprefix("/")
    if plain in _BLOCKS:
        return LINE_BREAK, False
    if plain not in _INLINE:
        return ("", False) if plain in TABLE_PARTS else (tag, False)
    closed = following.startswith("</") and tag_name(following) == f"/{name}"
    if closed and name == "sup" and _NUMBER.fullmatch(text):
        return text.strip().translate(_RAISED), True
    if closed and (name == "rp" or ("display" in tag and _HIDDEN.search(tag))):
        return "", True
    if plain == "rt":
        return ("", True) if closed and not text.strip() else ("）" if name == "/rt" else "（", False)
    return "", False
