"""What is left of markup in rendered text, and what its going leaves behind: empty brackets, blank lines.

In: text in which links, templates and tables are resolved. Out: plain text, a paragraph, heading, list item or table
row a line. These are rules over characters; they run on prose only (formulas and code are marks at this point).
"""

import re

from megadec.corpus.clean.wiki.protect import GAP, LINE_BREAK, OUTSIDE_LABEL, STRAY_ROW, unescape_entities

_TAGS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|"
    "kbd|li|link|mark|meta|nobr|noinclude|includeonly|onlyinclude|nowiki|ol|p|poem|q|rb|ref|references|rp|rt|rtc|ruby|"
    "s|samp|section|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|time|tr|tt|u|ul|var|wbr|math|source|"
    "syntaxhighlight|pre|gallery|score|timeline|poem|a|translate|tvar"
)
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|dl|dd|dt|blockquote|center|hr|poem|h[1-6])(?:\s[^<>]*)?/?>", re.I)
_ANY_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.I)
_SUPERSCRIPT = re.compile(r"<sup(?:\s[^<>]*)?>\s*([-+−0-9]{1,6})\s*</sup>", re.I)
_RUBY_TEXT = re.compile(r"<rt(?:\s[^<>]*)?>([^<>]*)</rt>", re.I)
_RUBY_BRACKET = re.compile(r"<rp(?:\s[^<>]*)?>[^<>]*</rp>", re.I)
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_LINE_START = re.compile(r"^(?:-{4,}|[ \t]*[*#:;]+[ \t]*)", re.MULTILINE)
_MAGIC_WORD = re.compile(r"__[A-Z]{3,}__|__[\u4e00-\u9fff]{2,}__")
_STRAY_ROW = re.compile(f"{STRAY_ROW}[^\n]*")
_MARKUP_REST = re.compile(r"\[\[|\]\]|\{\{+|\}\}+|-\{|\}-")
_REST_PASSES = 20
_WIDE = r"\t\u00a0\u2002-\u200a\u202f"
_SPACES = re.compile(rf"(?: [ {_WIDE}]|[{_WIDE}])[ {_WIDE}]*")  # a single blank needs no change
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff\u00ad\ufdd0-\ufdef]")

_OPEN, _CLOSE = "（(「『《〈“‘【〔[", "）)」』》〉”’】〕]"
_EMPTY_BRACKETS = re.compile(rf"[{re.escape(_OPEN)}][\s,，;；、:：/・·]*[{re.escape(_CLOSE)}]")
_ROUND = re.compile(r"（([^（）()\n]*)）")
# `德语：` in a bracket whose foreign word was markup that is gone.
_LABEL_ALONE = re.compile(r"(?:^|(?<=[;；,，、]))\s*[\u4e00-\u9fff]{1,5}[语語文]\s*[:：]\s*(?=[;；,，、]|$)")
_REPEATED = re.compile(r"([,，;；、])(?:\s*[,，;；、])+")
_ROUND_EDGE = " \t\n\u00a0\u3000,，;；、"
_STOPS_TWICE = re.compile(r"([，、；])[，、；]+")
_STOP_BEFORE_END = re.compile("[，、；]+(?=[。！？])")
_SPACE_BY_MARK = re.compile(r" (?:(?=[，。；：、？！）」』》】])|(?<=[，。；：、？！（「『《【] ))")


_CLAUSE_END = re.compile("([，。；！？,;!?]+)")
_ANY_ROUND = re.compile(r"[（(]([^（）()\n]*)[)）]")
_LONGEST_CLAUSE = 40
_PAIRS = ("（）", "()", "「」", "『』", "《》", "“”", "‘’", "【】")


def drop_gaps(text: str) -> tuple[str, int]:
    """The text without the clauses that have a gap, and their number: `他是作家，现年岁，住北京` -> `他是作家，住北京`.

    In brackets the part goes, or the brackets with it. A long clause keeps what else it says, and so does a row of a
    table or a part of a quotation.
    """
    number = text.count(GAP)
    if not number:
        return text, 0
    text = _ANY_ROUND.sub(_without_gap_inside, text)
    lines = (_without_gap(line) if GAP in line else line for line in text.split("\n"))
    return "\n".join(lines), number


def _without_gap_inside(match: re.Match[str]) -> str:
    if GAP not in match[1]:
        return match[0]
    parts = [part for part in re.split("[，,；;]", match[1]) if GAP not in part and part.strip()]
    return f"（{'，'.join(part.strip() for part in parts)}）" if parts else ""


def _without_gap(line: str) -> str:
    if " | " in line:
        return line.replace(GAP, "")
    parts = _CLAUSE_END.split(line)  # clauses and the marks after them in turns
    kept: list[str] = []
    for clause, mark in zip(parts[::2], [*parts[1::2], ""], strict=True):
        whole = all(clause.count(pair[0]) == clause.count(pair[1]) for pair in _PAIRS)
        if GAP not in clause or not whole or len(clause) > _LONGEST_CLAUSE:
            kept += (clause.replace(GAP, ""), mark)
        elif len(kept) > 1 and kept[-1][:1] in "，,；;" and mark[:1] in "。！？；!?;":
            kept[-1] = mark  # the clause before now ends the sentence
    if kept and kept[-1][:1] in ("，", ",", "；", ";") and not line.endswith(kept[-1]):
        kept.pop()
    return "".join(kept)


def strip_line_markup(text: str) -> str:
    """List markers, rulers and formatting tags of a text that was rendered by others."""
    if "<" in text:
        text = _SUPERSCRIPT.sub(lambda match: match[1].translate(_RAISED), text)
        text = _RUBY_TEXT.sub(r"（\1）", _RUBY_BRACKET.sub("", text))
        text = _ANY_TAG.sub("", _BLOCK_TAG.sub(LINE_BREAK, text))
    return _LINE_START.sub("", text)


def tidy(text: str) -> str:
    """Rendered text as lines: what is left of markup goes, entities are resolved, brackets and blanks tidied."""
    text = _LINE_START.sub("", text.replace(LINE_BREAK, "\n").replace(OUTSIDE_LABEL, ""))
    if STRAY_ROW in text:
        text = _STRAY_ROW.sub("", text)
    text = text.replace("'''''", "").replace("'''", "").replace("''", "")
    if "__" in text:
        text = _MAGIC_WORD.sub("", text)
    for _ in range(_REST_PASSES):  # what goes may bring two halves of a mark together
        text, count = _MARKUP_REST.subn("", text)
        if not count:
            break
    return tidy_lines(tidy_brackets(unescape_entities(text)))


def tidy_brackets(text: str) -> str:
    """Remove brackets that removed markup has emptied, and the separators that it left: `（；德语：，简称X）`."""
    text = _ROUND.sub(_tidy_round, text)
    for _ in range(3):
        shorter = _EMPTY_BRACKETS.sub(_without_empty, text)
        if len(shorter) == len(text):
            break
        text = shorter
    return text


def _without_empty(match: re.Match[str]) -> str:
    """Nothing for a pair of brackets; not after a Latin letter, where main() and a[] are words of their own."""
    opening, closing, start = match[0][0], match[0][-1], match.start()
    if _OPEN.index(opening) != _CLOSE.index(closing):
        return match[0]
    before = match.string[start - 1] if start and opening < "\x80" else ""
    return match[0] if before and before < "\x80" and (before.isalnum() or before == "_") else ""


def _tidy_round(match: re.Match[str]) -> str:
    inner = _REPEATED.sub(r"\1", _LABEL_ALONE.sub("", match[1]))
    return f"（{inner.strip(_ROUND_EDGE)}）"


def tidy_lines(text: str) -> str:
    """One blank at most inside a line and none beside Chinese marks, no empty lines, no invisible characters."""
    text = _SPACES.sub(" ", text)
    text = _SPACE_BY_MARK.sub("", _STOP_BEFORE_END.sub("", _STOPS_TWICE.sub(r"\1", text)))
    lines = (line.strip().lstrip("，、；。") for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def drop_invisible(text: str) -> str:
    """Zero-width and direction characters and our own marks go."""
    return _INVISIBLE.sub("", text)
