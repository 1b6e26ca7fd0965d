"""Replaces parts of a page that are not wikitext (comments, nowiki, math, code, footnotes) by marks, before parsing.

So `-{` in a formula and `[[` in code are not markup. Marks are Unicode noncharacters. Math becomes `$...$`, code
keeps its lines; galleries, timelines, scores and maps go with their captions.
"""

import html
import re
from collections.abc import Callable

# U+FDD0..U+FDEF are noncharacters: no meaningful page holds one.
MARK_START, MARK_END = "\ufdd0", "\ufdd1"
LINE_BREAK, LESS_THAN = "\ufdd4", "\ufdd5"

_NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")
_MARK = re.compile(f"{MARK_START}([0-9]+){MARK_END}")
_DROPPED_TAGS = (
    "gallery|timeline|imagemap|score|graph|chart|templatedata|templatestyles|hiero|mapframe|maplink|inputbox|"
    "references|categorytree|indicator|style|script|section|noinclude|rss|phonos"
)
_FORMULA_TAGS = "math|chem|ce"
_CODE_TAGS = "syntaxhighlight|source|pre"
_OPENER = re.compile(rf"<!--|<(nowiki|{_FORMULA_TAGS}|{_CODE_TAGS}|{_DROPPED_TAGS})(\s[^<>]*?)?(/?)>", re.IGNORECASE)
_REFERENCE = re.compile(r"<ref(?:\s[^<>]*?)?/>|(<ref(?:\s[^<>]*)?>)|(</ref\s*>)", re.IGNORECASE)
_NOWIKI_TAG = re.compile(r"</?nowiki\s*>\n?", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


def protect(wikitext: str) -> tuple[str, list[str]]:
    """The text with marks, and the texts they stand for. Linear in the length of the page, also when tags are open."""
    text = _NONCHARACTERS.sub("", wikitext)
    kept: list[str] = []
    parts: list[str] = []
    never_closed: set[str] = set()
    position = 0
    while match := _OPENER.search(text, position):
        parts.append(text[position : match.start()])
        position = match.end()
        name = (match[1] or "!--").lower()
        if match[3] or name in never_closed:
            continue
        end = _CLOSERS[name].search(text, position)
        if end is None:
            never_closed.add(name)  # the opening goes, what follows stays, and nobody looks for the end again
            continue
        parts.append(_stand_in(name, match[2] or "", text[position : end.start()], kept))
        position = end.end()
    return drop_references("".join(parts) + text[position:]), kept


def restore(text: str, kept: list[str]) -> str:
    """Put the kept texts back in the place of their marks."""
    return _MARK.sub(lambda match: kept[int(match[1])] if int(match[1]) < len(kept) else "", text)


def drop_references(text: str) -> str:
    """Remove footnotes. An opening <ref> without its end loses the tag only, so that it cannot eat the page."""
    parts: list[str] = []
    position, opened_at = 0, -1
    for match in _REFERENCE.finditer(text):
        if match[2] and opened_at >= 0:
            del parts[opened_at:]
            opened_at = -1
        else:
            parts.append(text[position : match.start()])
            if match[1]:
                opened_at = len(parts)
        position = match.end()
    return "".join(parts) + text[position:]


def unescape_entities(text: str) -> str:
    """HTML entities that end with a semicolon as characters; `&copy=1` in an address is not one."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


_CLOSERS = {"!--": re.compile("-->")} | {
    name: re.compile(rf"</{name}\s*>", re.IGNORECASE)
    for name in f"nowiki|{_FORMULA_TAGS}|{_CODE_TAGS}|{_DROPPED_TAGS}".split("|")
}


def _stand_in(name: str, attributes: str, content: str, kept: list[str]) -> str:
    """What stands in the text for a closed tag: a mark, or nothing."""
    render = _RENDERED.get(name)
    shown = render(content) if render else ""
    if not shown.strip():
        return ""
    kept.append(shown)
    mark = f"{MARK_START}{len(kept) - 1}{MARK_END}"
    if name in _CODE_TAGS.split("|"):
        is_block = not re.search(r"\binline\b", attributes, re.IGNORECASE)
    else:
        is_block = re.search(r"display\s*=\s*[\"']?block", attributes, re.IGNORECASE) is not None
    return f"\n{mark}\n" if is_block else mark


def _formula(content: str) -> str:
    words = " ".join(unescape_entities(content).split())
    return f"${words}$" if words else ""


def _code(content: str) -> str:
    lines = [line.rstrip() for line in content.expandtabs(4).split("\n")]
    return "\n".join(lines).strip("\n")


_RENDERED: dict[str, Callable[[str], str]] = {
    "nowiki": unescape_entities,
    "pre": lambda content: _code(unescape_entities(_NOWIKI_TAG.sub("", content))),
    "source": _code,
    "syntaxhighlight": _code,
    **dict.fromkeys(_FORMULA_TAGS.split("|"), _formula),
}
