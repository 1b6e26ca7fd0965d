"""Turns the parsed tree of a passage into its words: links, templates, tables.

Braces are balanced in one linear pass first: mwparserfromhell tries again from every opening that has no end. Passages
that nest too deeply or are too long are cleaned by rules alone.
"""

import re
from functools import partial

import mwparserfromhell
from mwparserfromhell import nodes
from mwparserfromhell.nodes import Node
from mwparserfromhell.wikicode import Wikicode

from megadec.corpus.clean.leftovers import without_templates
from megadec.corpus.clean.protect import LINE_BREAK
from megadec.corpus.clean.tables import render_table
from megadec.corpus.clean.wiki.templates.arguments import Page
from megadec.corpus.clean.wiki.templates.expand import expand

DEEPEST_NESTING = 24
LONGEST_PASSAGE = 300_000

_BRACES = re.compile(r"(\{\{|\}\}|\[\[|\]\])")
_TABLE_MARKS = re.compile(r"^[ \t]*(\{\||\|\}(?!\}))", re.MULTILINE)
_PARTNER = {"}}": "{{", "]]": "[[", "|}": "{|"}
_OPEN_HEAD = {"[[": re.compile(r"[^\[\]{}|\n]*\|"), "{{": re.compile(r"[^\[\]{}|\n]*(?:\||$)", re.MULTILINE)}
_NAMESPACE = re.compile(
    r"\s*(?:file|image|media|category|文件|檔案|档案|图像|圖像|圖片|图片|媒体|媒體|分类|分類|special|特殊)\s*:", re.I
)
_PROJECTS = frozenset(["w", "wikt", "s", "b", "n", "q", "d", "v", "m", "c", "mw", "voy", "wmf", "doi", "rfc", "iso"])
_LANGUAGE = re.compile(r"\s*([a-z]{2,3}(?:-[a-z-]+)?|simple|tokipona)\s*:", re.ASCII)
_PREFIX = re.compile(r"^\s*:?\s*(?:(?:w|wikt|s|b|n|q|d|v|m|wikipedia|wiktionary|[a-z]{2,3})\s*:\s*)*", re.I)
_SCHEMES = "https?|ftps?|sftp|mailto|news|nntp|ircs?|tel|git|svn|gopher|magnet|sips?|sms|ssh|telnet|urn|xmpp|geo|mms"
_EXTERNAL_TOKEN = re.compile(
    rf"\[\[|\[(?=//|(?:{_SCHEMES}|bitcoin|redis|worldwind):)[^\s\[\]<>{{}}|\"]*[ \t]*|\]|\n", re.IGNORECASE
)


def words_of(wikitext: str, page: Page) -> tuple[str, bool]:
    """The text of a passage, and whether it was too tangled (or too long) for the parser and went by rules alone."""
    text, deepest = balance(external_labels(wikitext))
    if deepest > DEEPEST_NESTING or len(text) > LONGEST_PASSAGE:
        return without_templates(text), True
    if not re.search(r"\[\[|\{|<t", text):
        return text, False
    return _render(mwparserfromhell.parse(text, skip_style_tags=True), page), False


def external_labels(wikitext: str) -> str:
    """`[http://a label]` -> `label`, `[http://a]` -> nothing; one pass, also where the bracket is never closed.

    The parser would do it too, but it starts anew from every bracket that has no end.
    """
    removed: list[tuple[int, int]] = []
    opened: list[str] = []  # "[" for an external link, "[[" for one inside the wiki
    position = 0
    while match := _EXTERNAL_TOKEN.search(wikitext, position):
        token, position = match[0], match.end()
        if token == "\n":
            opened.clear()
        elif token == "[[":
            opened.append(token)
        elif token != "]":
            opened.append("[")
            removed.append(match.span())
        elif opened and opened[-1] == "[":
            opened.pop()
            removed.append(match.span())
        elif wikitext.startswith("]]", match.start()):
            position += 1
            if opened:
                opened.pop()
    return _without(wikitext, removed)


def balance(wikitext: str) -> tuple[str, int]:
    """Remove braces that have no partner, with the name after an opening; also the deepest nesting of the rest.

    What stood between table marks without a partner goes by lines in `tidy`.
    """
    text = _without(wikitext, _unmatched(_TABLE_MARKS, wikitext)[0])
    unmatched, deepest = _unmatched(_BRACES, text)
    return _without(text, unmatched), deepest


def _unmatched(marks: re.Pattern[str], text: str) -> tuple[list[tuple[int, int]], int]:
    """Where the marks without a partner stand, and the deepest nesting."""
    opened: list[tuple[str, int]] = []
    unmatched: list[tuple[int, int]] = []
    deepest = 0
    for match in marks.finditer(text):
        partner = _PARTNER.get(match[1])
        if partner is None:
            opened.append((match[1], match.start(1)))
            deepest = max(deepest, len(opened))
            continue
        nearest = range(len(opened) - 1, max(-1, len(opened) - 40), -1)
        depth = next((i for i in nearest if opened[i][0] == partner), None)
        if depth is None:
            unmatched.append(match.span())
        else:
            unmatched.extend(_opening_span(text, *lost) for lost in opened[depth + 1 :])
            del opened[depth:]
    unmatched.extend(_opening_span(text, *lost) for lost in opened)
    return unmatched, deepest


def _opening_span(text: str, brace: str, start: int) -> tuple[int, int]:
    head = _OPEN_HEAD[brace].match(text, start + 2, start + 102) if brace in _OPEN_HEAD else None
    return start, head.end() if head else start + 2


def _without(text: str, spans: list[tuple[int, int]]) -> str:
    parts, position = [], 0
    for start, end in sorted(spans):
        if start >= position:
            parts.append(text[position:start])
        position = max(position, end)
    return "".join(parts) + text[position:]


def _render(code: Wikicode, page: Page) -> str:
    return "".join(_render_node(code.nodes, index, page) for index in range(len(code.nodes)))


def _render_node(siblings: list[Node], index: int, page: Page) -> str:
    node = siblings[index]
    if isinstance(node, nodes.Text):
        return str(node.value)
    if isinstance(node, nodes.Wikilink):
        return _link(node, page)
    if isinstance(node, nodes.Template):
        parameters = [(str(parameter.name).strip(), _render(parameter.value, page)) for parameter in node.params]
        return expand(_render(node.name, page), parameters, page, _in_sentence(siblings, index)) or ""
    if isinstance(node, nodes.ExternalLink | nodes.HTMLEntity):
        return str(node)  # a bare address; those in brackets are gone
    if isinstance(node, nodes.Heading):
        return f"\n{_render(node.title, page).strip()}\n"
    if isinstance(node, nodes.Tag):
        return _tag(node, page)
    if isinstance(node, nodes.Argument) and node.default is not None:
        return _render(node.default, page)
    return ""


def _link(link: nodes.Wikilink, page: Page) -> str:
    title = str(link.title)
    if _NAMESPACE.match(title):
        return ""
    language = _LANGUAGE.match(title)
    if language and language[1] not in _PROJECTS:
        return ""
    if link.text is not None and (text := _render(link.text, page).strip()):
        return text
    return _PREFIX.sub("", _render(link.title, page)).lstrip("#").replace("_", " ").strip()


def _tag(tag: nodes.Tag, page: Page) -> str:
    name = str(tag.tag).strip().lower()
    if name == "table":
        return render_table(tag, partial(_render, page=page))
    if name in ("ref", "gallery") or tag.contents is None:
        return ""
    return _render(tag.contents, page)


def _in_sentence(siblings: list[Node], index: int) -> bool:
    """Whether something stands before or after this node on its line."""

    def on_line(neighbour: Node, line: int) -> str:
        """What a node has on its last (-1) or first (0) line; another template does not count."""
        if isinstance(neighbour, nodes.Text):
            return str(neighbour.value).split("\n")[line].strip(f" \t{LINE_BREAK}")
        return "" if isinstance(neighbour, nodes.Template) else "x"

    before = on_line(siblings[index - 1], -1) if index > 0 else ""
    return bool(before or (index + 1 < len(siblings) and on_line(siblings[index + 1], 0)))
