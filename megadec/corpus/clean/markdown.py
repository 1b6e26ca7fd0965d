"""Markdown and the HTML in it made plain, lightly: prose loses its markup, code and formulas stay as they are.

In: Markdown of one file or section. Out: plain text. Patterns, not a parser. What they do not know stays in the text,
which hurts a language model less than a paragraph lost.
"""

import html
import re
from dataclasses import replace

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*(---|\+\+\+)[ \t]*\n.*?\n\1[ \t]*(\n|\Z)", re.DOTALL)
_KEPT = re.compile(
    r"(?P<escape>\\[\\`*_{}\[\]()#+.!<>|~$-])"
    r"|(?P<fence>^[ \t]*(?P<mark>`{3,}|~{3,})[^\n]*\n.*?(?:^[ \t]*(?P=mark)[`~]*[ \t]*$|\Z))"
    r"|(?P<code>(?P<ticks>`+)(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`))"
    r"|(?P<formula>\$\$.{1,8000}?\$\$|(?<!\\)\$[^$\n]+?(?<!\\)\$)",
    re.DOTALL | re.MULTILINE,
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE)
_BREAK = re.compile(r"<br\s*/?>|</(?:p|div|li|tr|h[1-6]|blockquote|section|ul|ol|table)\s*>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9-]*(?:\s[^<>]*)?/?>")
_AUTOLINK = re.compile(r"<(?:https?|mailto|ftp):[^\s>]*>")
# A link's text may hold one level of brackets, its address one of parentheses.
_TEXT = r"\[((?:[^\[\]\n]|\[[^\[\]\n]*\])*)\]"
_TARGET = r"\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)"
_ONLY_LINK = re.compile(rf"^[ \t]*{_TEXT}{_TARGET}[ \t]*$", re.MULTILINE)
_IMAGE = re.compile(rf"!{_TEXT}(?:{_TARGET}|\[[^\]\n]*\])(?:\{{[^}}\n]*\}})?")
_LINK = re.compile(rf"{_TEXT}(?:{_TARGET}|\[[^\]\n]*\])(?:\{{[^}}\n]*\}})?")
_DEFINITION = re.compile(r"^[ \t]{0,3}\[(?!\^)[^\]\n]+\]:[ \t]+\S.*$", re.MULTILINE)
_FOOTNOTE = re.compile(r"\[\^[^\]\n]+\]:?")
_HEADING = re.compile(r"^[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t]*#*[ \t]*$", re.MULTILINE)
# Not after an ASCII letter or digit: 2*3*4 is arithmetic.
_EMPHASIS = re.compile(r"(?<![0-9A-Za-z*])(\*)(?=[^\s*])([^*\n]+?)(?<=\S)\1(?!\*)")
_STRONG = re.compile(r"(\*{2,3})(?=[^\s*])([^*\n]+?)(?<=\S)\1")
_RULE = re.compile(r"^[ \t]{0,3}(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,}|(?:_[ \t]*){3,})$", re.MULTILINE)
_CELL = r"[ \t]*:?-+:?[ \t]*"
_TABLE_RULE = re.compile(rf"^(?=[^\n]*\|)[ \t]*\|?{_CELL}(?:\|{_CELL})*\|?[ \t]*(?:\n|\Z)", re.MULTILINE)
# Material for MkDocs: `??? note "title"`, `=== "tab"`, `--8<-- "included file"`, `author: names` as the first line.
_ADMONITION = re.compile(r"^([ \t]*)(?:[!?]{3}\+?|===)[ \t]*[\w-]*[ \t]*\"?([^\"\n]*)\"?[ \t]*$", re.MULTILINE)
_INCLUDE = re.compile(r"^[ \t]*--8<--.*$", re.MULTILINE)
_AUTHOR = re.compile(r"\A\s*(?:author|disqus|comments):.*$", re.MULTILINE)
_STAMP = re.compile(r"^[ \t]*[(（]更新时间戳[:：].*[)）][ \t]*$", re.MULTILINE)


def clean_markdown(document: Document, context: CleanContext) -> Document | str:
    """The document with plain text, or the drop reason `empty`; a text that repeats the title has it once."""
    title = " ".join(plain_markdown(document.title).split())
    text = plain_markdown(document.text).strip()
    if title and text.startswith(title + "\n"):
        text = text[len(title) :].strip()
    return replace(document, title=title, text=text) if text else "empty"


def plain_markdown(text: str) -> str:
    """Markdown as plain text: front matter, comments, tags, links' addresses and marks of emphasis are gone.

    Fenced code, `inline code`, $formulas$ and tables' cells stay to the letter; fences and dollars too.
    """
    text = _FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1)
    text = _COMMENT.sub("", text)
    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(_kept_piece(match))
        return f"\x00{len(kept) - 1}\x00"

    # Kept pieces are taken out first and put back last; \x00 cannot stand in a text that was read.
    plain = _plain_prose(_KEPT.sub(keep, text.replace("\x00", "")))
    return re.sub(r"\x00(\d+)\x00", lambda match: kept[int(match[1])], plain)


def _kept_piece(match: re.Match[str]) -> str:
    """Code keeps its fence, so that it is known as code; a fence without its include has nothing left."""
    if match.group("fence") and "--8<--" in match.group("fence"):
        return ""
    if match.group("escape"):
        return match.group("escape")[1]
    if match.group("code"):
        return match.group("code").strip("`").strip()
    return match.group()


def _plain_prose(text: str) -> str:
    text = _AUTHOR.sub("", text, count=1)
    text = _HIDDEN.sub("", text)
    text = _BREAK.sub("\n", text)
    for pattern in (_TAG, _AUTOLINK, _INCLUDE, _STAMP, _DEFINITION, _ONLY_LINK, _IMAGE):
        text = pattern.sub("", text)
    text = _LINK.sub(r"\1", text)
    text = _FOOTNOTE.sub("", text)
    text = _HEADING.sub(r"\1", text)
    text = _ADMONITION.sub(r"\1\2", text)
    for pattern in (_RULE, _TABLE_RULE):
        text = pattern.sub("", text)
    for pattern in (_STRONG, _EMPHASIS):
        text = pattern.sub(r"\2", text)
    return html.unescape(text)
