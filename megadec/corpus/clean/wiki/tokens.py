"""Cuts wikitext into text and marks in one pass of one pattern, and finds the partner of each opening mark.

Links and templates with nothing inside are one mark each. The pattern is linear: what an alternative reads before it
fails ends at the next bracket, brace, tag or line end.
"""

import re
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

_SCHEMES = (
    "https?|ftps?|sftp|mailto|news|nntp|ircs?|tel|git|svn|gopher|magnet|sips?|sms|ssh|telnet|urn|xmpp|geo|mms|bitcoin|"
    "redis|worldwind"
)
_MARK = re.compile(
    r"""(
      \[\[[^\[\]{}<\n]*\]\]                                           # a link with nothing inside
    | \{\{\{[^\[\]{}<]*\}\}\}                                         # a parameter
    | \{\{[^\[\]{}<]*\}\}                                             # a template with nothing inside
    | \[\[ | \{\{ | \}\} | \|\|?
    | \](?=\]\](?:\]\])?(?!\])) | \]\]?                               # of an odd number of brackets the first is alone
    | !!
    | \[(?://|(?i:""" + _SCHEMES + r"""):)[^\s\[\]<>{}|"]*[ \t]*(?:[^\[\]{}<>\n|]*\])?
    | \n[ \t:*#;]*\{\|[^\n]*                                          # a table's beginning with its attributes
    | \n[ \t]*(?:\|\}(?!\}) | [|!])                                   # a table's end, a cell
    | \n=[^\n]*=[ \t]*+(?=\n|\Z)                                      # a heading
    | </?[A-Za-z][^<>]*>
    )""",
    re.VERBOSE,
)  # fmt: skip
_FARTHEST = 40  # open marks that a closing one looks through for its partner
_OPENING = {"[[": "[[", "{{": "{{"}
_CLOSING = {"]]": "[[", "}}": "{{", "]": "["}


class Tokens(NamedTuple):
    """pieces: text and marks in turns, beginning and ending with text. ends: where each piece ends in the wikitext.
    partners: the place of an opening mark -> that of its closing one, and the other way round; others have none.
    """

    pieces: list[str]
    ends: list[int]
    partners: dict[int, int]


def tokenize(wikitext: str) -> Tokens:
    """Text and marks of `wikitext`; linear in its length."""
    pieces = _MARK.split(wikitext)
    return Tokens(pieces, list(accumulate(map(len, pieces))), _partners(pieces))


def _partners(pieces: list[str]) -> dict[int, int]:
    opened: list[tuple[str, int]] = []
    partners: dict[int, int] = {}
    for index, mark in enumerate(pieces[1::2]):
        first = mark[0]
        if first in "|!" or (first in "[{" and mark[-1] in "]}"):  # a bar, or whole in itself
            continue
        index = 2 * index + 1
        opening = _OPENING.get(mark) or _longer_opening(mark)
        if opening:
            opened.append((opening, index))
            continue
        wanted = _CLOSING.get(mark) or _longer_closing(mark)
        if wanted == "[":
            # An address in brackets ends on its line and holds no open mark.
            if opened and opened[-1][0] == "[":
                _, start = opened.pop()
                if not any("\n" in piece for piece in pieces[start:index]):
                    partners[start], partners[index] = index, start
        elif wanted:
            nearest = range(len(opened) - 1, max(-1, len(opened) - _FARTHEST), -1)
            depth = next((i for i in nearest if opened[i][0] == wanted), None)
            if depth is not None:
                start = opened[depth][1]
                partners[start], partners[index] = index, start
                del opened[depth:]
    return partners


def _longer_opening(mark: str) -> str:
    if mark[0] == "[":
        return "["
    if mark[0] == "\n":
        return "{|" if "{|" in mark and mark[1] != "=" else ""
    return "<table" if mark[0] == "<" and tag_name(mark) == "table" else ""


def _longer_closing(mark: str) -> str:
    if mark[0] == "\n":
        return "{|" if mark[-1] == "}" and mark[1] != "=" else ""
    return "<table" if mark[0] == "<" and tag_name(mark) == "/table" else ""


@lru_cache(1024)
def tag_name(tag: str) -> str:
    """`<Table class=a>` -> `table`, `</TD>` -> `/td`, `<br/>` -> `br`."""
    head = tag[1:-1].split(None, 1)[0].lower()
    return head if head[0] == "/" else head.partition("/")[0]
