"""HTML as the web has it: pieces of it in texts (tags escaped or not, unclosed, cut), and whole pages.

Pieces lie in text that is mostly plain, whose newlines count: they are taken out in place. Of whole pages resiliparse
finds the article.
"""

import re
from functools import partial
from html import unescape
from typing import Any

from megadec.common.errors import needs_extra
from megadec.corpus.clean.context import Taken

# A tag of these begins or ends a line.
_BLOCKS = (
    "address|article|aside|blockquote|body|br|caption|center|dd|details|dir|div|dl|dt|fieldset|figcaption|figure|footer"
    "|form|h[1-6]|head|header|hr|html|li|main|menu|nav|ol|optgroup|option|p|pre|section|summary|table|tbody|tfoot|thead"
    "|title|tr|ul"
)
_INLINE = (
    "a|abbr|acronym|area|audio|base|bdi|bdo|big|button|canvas|cite|code|col|colgroup|data|del|dfn|embed|font|frame"
    "|frameset|iframe|img|input|ins|kbd|label|legend|link|map|mark|meta|nobr|noframes|noscript|nowiki|object|param"
    "|picture|rb|rp|rt|ruby|samp|script|select|small|source|span|strike|strong|style|sub|sup|svg|template|textarea"
    "|time|tt|var|video|wbr|(?:o|v|w|st1):[a-z]\\w*"
)
_SHORT = "b|em|i|q|s|u"  # where a name is a letter, an attribute tells a tag from `a<b and c>d`
_ATTRIBUTES = r"""(?:[\s/](?:[^<>"']|"[^"<]{0,1000}"|'[^'<]{0,1000}'|["'])*+)?"""
_TAG = re.compile(
    rf"</?(?:({_BLOCKS})|(td|th)|{_INLINE}){_ATTRIBUTES}>|</?(?:{_SHORT})(?:\s[^<>=]{{0,100}}=[^<>]*)?\s*/?>"
    r"|<!\[cdata\[|\]\]>|<(?:!doctype|!\[|\?xml)[^<>]*>|<!--",
    re.IGNORECASE,
)
# What begins like a tag at the text's end, where an export cut it.
_CUT_TAG = re.compile(
    rf"<(?:/(?:{_BLOCKS}|td|th|{_INLINE})|(?:{_BLOCKS}|td|th|{_INLINE})\s[^<>]*=[^<>]*)\Z", re.IGNORECASE
)
_LONGEST_CUT_TAG = 2000
# What is never shown, up to its end.
_HIDDEN = re.compile(r"<(script|style|iframe|noframes|template|select|svg|object)\b[^<>]*>|<!--", re.IGNORECASE)
_ESCAPED_TAG = re.compile(
    rf"&(?:amp;)?lt;(?:/(?:{_BLOCKS}|{_INLINE})|br\s*/?|(?:img|p|div|span|font)\s[^<>]{{0,200}}?)\s*&(?:amp;)?gt;",
    re.IGNORECASE,
)
_WITHOUT_SEMICOLON = re.compile(r"&(nbsp|lt|gt|amp|quot|ldquo|rdquo|hellip|mdash|middot)(?![A-Za-z0-9;=])")
_BREAK = "\x1e"  # stands where a line ends


def plain_html(text: str, taken: Taken) -> str:
    """`text` without tags, comments, scripts and styles, which are counted; entities other than those of escaped tags
    stay for the caller. Block tags end lines. A sign that opens no tag of HTML, as in `a<b` or `vector<int>`, stays.
    """
    text = _WITHOUT_SEMICOLON.sub(r"&\1;", text) if "&" in text else text
    for _ in range(2):  # escaped twice
        if "&" not in text or _TAG.search(text) or not _ESCAPED_TAG.search(text):
            break
        text = unescape(text)
    if "<" not in text:
        return text
    text = _without_hidden(text, taken)
    size = len(text)
    plain = _TAG.sub(lambda match: _BREAK if match[1] else " " if match[2] else "", text)
    plain = plain[:-_LONGEST_CUT_TAG] + _CUT_TAG.sub("", plain[-_LONGEST_CUT_TAG:])
    if plain == text:
        return text
    taken.add("HTML tags", size - len(plain), 1)
    lines = (line.strip(" \t\r\n") for line in plain.split(_BREAK))
    return "\n".join(filter(None, lines))


def _without_hidden(text: str, taken: Taken) -> str:
    """`text` without comments, and scripts and the like up to their end tags; one without an end stays, as prose may
    speak of it."""
    lower = text.lower()
    ends: dict[str, int] = {}
    kept: list[str] = []
    at = 0
    for match in _HIDDEN.finditer(text):
        if match.start() < at:
            continue
        end = "-->" if match[1] is None else f"</{match[1].lower()}"
        place = lower.find(end, match.end()) if ends.get(end, 0) >= 0 else -1
        ends[end] = place  # where there is none after this, there is none after the next
        if place < 0:
            continue
        place = lower.find(">", place) + 1 or len(text)
        kept.append(text[at : match.start()])
        taken.add("HTML comments" if match[1] is None else "scripts and styles", place - match.start())
        at = place
    return "".join((*kept, text[at:]))


def _keep_lists(tree: Any) -> None:
    """Make the lists of prose ordered ones: resiliparse takes every <ul> for navigation, and no <ol>.

    Prose is a list in which links are less than half of the text.
    """
    for listed in list(tree.document.get_elements_by_tag_name("ul")):
        links = sum(len(link.text) for link in listed.get_elements_by_tag_name("a"))
        if 2 * links < len(listed.text):
            ordered = tree.create_element("ol")
            for child in list(listed.child_nodes):
                ordered.append_child(child)
            listed.parent.replace_child(ordered, listed)


def article_of(page: str) -> tuple[str, str]:
    """(title, text) of a whole page: the article that resiliparse finds, or all that is shown where it finds none.

    Raises MissingExtraError where resiliparse is not installed.
    """
    with needs_extra("resiliparse", "html"):
        from resiliparse.extract.html2text import extract_plain_text
        from resiliparse.parse.html import HTMLTree
    tree = HTMLTree.parse(page)
    _keep_lists(tree)
    extract = partial(extract_plain_text, preserve_formatting=True, alt_texts=False, list_bullets=False)
    text = extract(tree, main_content=True, comments=False) or extract(tree)
    return (tree.title or "").strip(), text.strip()
