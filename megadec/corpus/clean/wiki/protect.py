"""Replaces parts of a page that are not wikitext (comments, nowiki, math, code, footnotes) by marks, before parsing.

So `-{` in a formula and `[[` in code are not markup. Marks are Unicode noncharacters. Math becomes `$...$`, code
keeps its lines; galleries, timelines, scores and maps go with their captions.
"""

import html
import re
from collections.abc import Callable
from typing import NamedTuple

from megadec.corpus.clean.context import Taken

# U+FDD0..U+FDEF are noncharacters: no meaningful page holds one.
MARK_START, MARK_END = "\ufdd0", "\ufdd1"
LINE_BREAK = "\ufdd4"
# Opens the label of a link to another site; and a line of a box or table whose beginning is not there.
OUTSIDE_LABEL, STRAY_ROW = "\ufdd6", "\ufdd7"
# Where a template would show what only today knows (an age, an exchange rate): the clause around it goes.
GAP = "\ufdda"
# Where an expression cannot be computed; shows nothing.
ERROR = "\ufddb"
# Between sections, and between a heading and what is under it.
SECTION_END, TITLE_END = "\ufdd8", "\ufdd9"

_NONCHARACTERS = re.compile("[\ufdd0-\ufdef]")
_MARK = re.compile(f"{MARK_START}([0-9]+){MARK_END}")
_CODE_TAGS = frozenset(("syntaxhighlight", "source", "pre"))
# What the content of a tag is counted as when it goes, or for what it loses.
_KINDS = {
    "!--": "comments",
    "nowiki": "markup",
    "references": "references",
    "gallery": "files",
    **dict.fromkeys(("math", "chem", "ce"), "formulas"),
    **dict.fromkeys(_CODE_TAGS, "code"),
    **dict.fromkeys(("timeline", "imagemap", "score", "graph", "chart", "hiero", "mapframe", "maplink"), "graphics"),
    **dict.fromkeys(
        ("templatedata", "templatestyles", "inputbox", "categorytree", "indicator", "style", "script", "section",
         "includeonly", "rss", "phonos"),
        "extensions",
    ),
}  # fmt: skip
_TAGS = [name for name in _KINDS if name != "!--"]
_OPENER = re.compile(rf"<!--|<({'|'.join(_TAGS)})(\s[^<>]*?)?(/?)>", re.IGNORECASE)
_CLOSERS = {"!--": re.compile("-->")} | {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _TAGS}
_REFERENCE = re.compile(r"<(/?)ref(?:[\s/][^<>]*)?>", re.IGNORECASE)
# What stands in a gallery, for one whose end is missing.
_FILE_LINES = re.compile(
    r"(?:\s*+[^\n|<>\[\]{}]*\.(?:jpe?g|png|svg|gif|tiff?|webp|ogg|webm|pdf)(?=[\s|]|$)[^\n]*)+", re.IGNORECASE
)
_NOWIKI_TAG = re.compile(r"</?nowiki\s*>\n?", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")


class Kept(NamedTuple):
    """The text that a mark stands for, and what its tag is counted as."""

    text: str
    kind: str


def protect(wikitext: str, taken: Taken) -> tuple[str, list[Kept]]:
    """The text with marks, and the texts they stand for. Linear in the length of the page, also when tags are open.

    What goes here is counted in `taken`; what a mark is shorter than its tag too, until `restore` counts it back.
    """
    text = _NONCHARACTERS.sub("", wikitext)
    if "<" not in text:
        return text, []
    kept: list[Kept] = []
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
            if name == "gallery" and (files := _FILE_LINES.match(text, position)):
                taken.add("files", len(files[0]))
                position = files.end()
            continue
        parts.append(_stand_in(name, match[2] or "", text[position : end.start()], kept))
        position = end.end()
        taken.add(_KINDS[name], position - match.start() - len(parts[-1]))
    parts.append(text[position:])
    return drop_references("".join(parts), taken), kept


def restore(text: str, kept: list[Kept], taken: Taken) -> str:
    """Put the kept texts back in the place of their marks."""

    def original(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= len(kept):
            return ""
        taken.add(kept[number].kind, len(match[0]) - len(kept[number].text), pieces=0)
        return kept[number].text

    return _MARK.sub(original, text)


def drop_references(text: str, taken: Taken) -> str:
    """Remove footnotes. An opening <ref> without its end loses the tag only, so that it cannot eat the page."""
    parts: list[str] = []
    position, opened_at, opened_from, inner = 0, -1, 0, 0
    for match in _REFERENCE.finditer(text):
        if match[1] and opened_at >= 0:
            # Tags that stood between were counted when they were met.
            del parts[opened_at:]
            taken.add("references", match.end() - opened_from - inner)
            opened_at = -1
        else:
            parts.append(text[position : match.start()])
            if match[0][-2] == "/":
                taken.add("references", len(match[0]))
                inner += len(match[0])
            elif not match[1]:
                opened_at, opened_from, inner = len(parts), match.start(), 0
        position = match.end()
    return "".join(parts) + text[position:]


def unescape_entities(text: str) -> str:
    """HTML entities that end with a semicolon as characters; `&copy=1` in an address is not one."""
    return _ENTITY.sub(lambda match: html.unescape(match[0]), text) if "&" in text else text


def _stand_in(name: str, attributes: str, content: str, kept: list[Kept]) -> str:
    """What stands in the text for a closed tag: a mark, or nothing."""
    render = _RENDERED.get(name)
    shown = render(content) if render else ""
    if not shown.strip():
        return ""
    kept.append(Kept(shown, _KINDS[name]))
    mark = f"{MARK_START}{len(kept) - 1}{MARK_END}"
    if name in _CODE_TAGS:
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
    **dict.fromkeys(("math", "chem", "ce"), _formula),
}
