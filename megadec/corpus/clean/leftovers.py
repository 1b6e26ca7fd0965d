"""What is left of markup once the parser is done, and what its going leaves behind: empty brackets, blank lines.

In: text in which most markup is resolved. Out: plain text, a paragraph, heading, list item or table row a line. These
are rules over characters; they run on prose only (formulas and code are marks at this point).
"""

import re

from megadec.corpus.clean.protect import LESS_THAN, LINE_BREAK, unescape_entities

_TAGS = (
    "abbr|b|bdi|bdo|big|blockquote|br|caption|center|cite|code|data|dd|del|dfn|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|"
    "kbd|li|link|mark|meta|nobr|noinclude|includeonly|onlyinclude|nowiki|ol|p|poem|q|rb|ref|references|rp|rt|rtc|ruby|"
    "s|samp|section|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|time|tr|tt|u|ul|var|wbr|math|source|"
    "syntaxhighlight|pre|gallery|score|timeline|poem|a|translate|tvar"
)
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|dl|dd|dt|blockquote|center|hr|poem|h[1-6])(?:\s[^<>]*)?/?>", re.I)
_HIDDEN = re.compile(r"<span[^<>]*display\s*:\s*none[^<>]*>[^<>]*</span>", re.I)
_TABLE_TAG = re.compile(r"</?(?:table|tbody|thead|tfoot|tr|td|th|caption)(?:\s[^<>]*)?/?>", re.I)
_CELL_TAG = re.compile(r"</?(?:table|tr|td|th)\b", re.I)
_ANY_TAG = re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]*)?/?>", re.I)
_SUPERSCRIPT = re.compile(r"<sup(?:\s[^<>]*)?>\s*([-+−0-9]{1,6})\s*</sup>", re.I)
_RUBY_TEXT = re.compile(r"<rt(?:\s[^<>]*)?>([^<>]*)</rt>", re.I)
_RUBY_BRACKET = re.compile(r"<rp(?:\s[^<>]*)?>[^<>]*</rp>", re.I)
_RAISED = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_QUOTES = re.compile(r"'{5}|'{3}|''")
_LINE_START = re.compile(r"^[ \t]*[*#:;]+[ \t]*", re.MULTILINE)
_RULER = re.compile(r"^-{4,}", re.MULTILINE)
_MAGIC_WORD = re.compile(r"__[A-Z]{3,}__|__[\u4e00-\u9fff]{2,}__")
_TABLE_LINE = re.compile(r"^[ \t]*(?:\{\||\|\}|[|!]).*$", re.MULTILINE)
_FILE_LINK = re.compile(r"\[\[\s*(?:file|image|文件|檔案|档案|图像|圖像|圖片)\s*:[^\[\]\n]*", re.I)
_MARKUP_REST = re.compile(r"\[\[[^\[\]{}|\n]*\||\[\[|\]\]|\{\{+|\}\}+|-\{|\}-")
_REST_PASSES = 5
_SPACES = re.compile(r"[ \t\u00a0\u2002-\u200a\u202f]+")
_INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff\u00ad\ufdd0-\ufdef]")

_OPEN, _CLOSE = "（(「『《〈“‘【〔[", "）)」』》〉”’】〕]"
# Not after a Latin letter: main() and a[] are words of their own.
_EMPTY_BRACKETS = re.compile(
    "|".join(
        ("(?<![A-Za-z0-9_])" if ord(start) < 128 else "") + rf"{re.escape(start)}[\s,，;；、:：/・·]*{re.escape(end)}"
        for start, end in zip(_OPEN, _CLOSE, strict=True)
    )
)
_ROUND = re.compile(r"（([^（）()\n]*)）")
_ROUND_EDGE = re.compile(r"^[\s,，;；、]+|[\s,，;；、]+$")
# `德语：` in a bracket whose foreign word was markup that is gone.
_LABEL_ALONE = re.compile(r"(?:^|(?<=[;；,，、]))\s*[\u4e00-\u9fff]{1,5}[语語文]\s*[:：]\s*(?=[;；,，、]|$)")
_REPEATED = re.compile(r"([,，;；、])(?:\s*[,，;；、])+")
_STOPS_TWICE = re.compile(r"([，、；])[，、；]+")
_SPACE_BY_MARK = re.compile(r" +(?=[，。；：、？！）」』》】])|(?<=[，。；：、？！（「『《【]) +")
_PARAMETER = re.compile(r"\{\{\{[^{}|]*\|?([^{}]*)\}\}\}")
_INNER_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_INNER_LINK = re.compile(r"\[\[([^\[\]\n|]*)(?:\|([^\[\]]*))?\]\]")
_OUTER_LINK = re.compile(r"\[(?:https?:|ftp:)?//[^\s\[\]]*[ \t]*([^\[\]\n]*)\]")
_NOT_PROSE = re.compile(r"\s*(?:file|image|category|文件|檔案|档案|图像|圖像|分类|分類)\s*:", re.I)


def strip_line_markup(wikitext: str) -> str:
    """Before parsing: list markers, rulers and formatting tags go; line breaks become a mark that no link breaks on."""
    text = _RULER.sub("", wikitext)
    if "<" in text:
        text = _SUPERSCRIPT.sub(lambda match: match[1].translate(_RAISED), _HIDDEN.sub("", text))
        text = _RUBY_TEXT.sub(r"（\1）", _RUBY_BRACKET.sub("", text))
        text = _BLOCK_TAG.sub(LINE_BREAK, text)
        text = _strip_tags(text)
    return _LINE_START.sub("", text)


def _strip_tags(text: str) -> str:
    """Formatting tags go; table tags stay for the parser if each has its end; any other `<` cannot start a tag."""
    tables = [match[0].lower() for match in _TABLE_TAG.finditer(text)]
    opened = sum(tag.startswith("<table") for tag in tables)
    if opened and opened == sum(tag.startswith("</table") for tag in tables):
        kept = _ANY_TAG.sub(lambda match: match[0] if _CELL_TAG.match(match[0]) else "", text)
        return re.sub(r"<(?!/?(?:table|tr|td|th)\b)", LESS_THAN, kept)
    return _ANY_TAG.sub("", text).replace("<", LESS_THAN)


def without_templates(wikitext: str) -> str:
    """Rules alone, for a passage that is too tangled to parse: templates go, links become their words."""
    text = _PARAMETER.sub(r"\1", wikitext)
    for _ in range(12):
        shorter = _INNER_LINK.sub(_link_words, _INNER_TEMPLATE.sub("", text))
        if len(shorter) == len(text):
            break
        text = shorter
    return _OUTER_LINK.sub(r"\1", text)


def _link_words(match: re.Match[str]) -> str:
    if _NOT_PROSE.match(match[1]):
        return ""
    return match[2] if match[2] is not None else match[1]


def tidy(text: str) -> str:
    """After parsing: what is left of markup goes, entities become characters, then brackets and blanks are tidied."""
    text = _QUOTES.sub("", text.replace(LINE_BREAK, "\n").replace(LESS_THAN, "<"))
    text = _ANY_TAG.sub("", _MAGIC_WORD.sub("", text))
    text = _FILE_LINK.sub("", _TABLE_LINE.sub("", text))
    for _ in range(_REST_PASSES):  # what goes may bring two halves of a mark together
        text, count = _MARKUP_REST.subn("", text)
        if not count:
            break
    return tidy_lines(tidy_brackets(unescape_entities(text)))


def tidy_brackets(text: str) -> str:
    """Remove brackets that removed markup has emptied, and the separators that it left: `（；德语：，简称X）`."""
    text = _ROUND.sub(_tidy_round, text)
    for _ in range(3):
        text, count = _EMPTY_BRACKETS.subn("", text)
        if not count:
            break
    return text


def _tidy_round(match: re.Match[str]) -> str:
    inner = _REPEATED.sub(r"\1", _LABEL_ALONE.sub("", match[1]))
    return f"（{_ROUND_EDGE.sub('', inner)}）"


def tidy_lines(text: str) -> str:
    """One blank at most inside a line and none beside Chinese marks, no empty lines, no invisible characters."""
    text = _SPACES.sub(" ", text)
    text = _SPACE_BY_MARK.sub("", _STOPS_TWICE.sub(r"\1", text))
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def drop_invisible(text: str) -> str:
    """Zero-width and direction characters and our own marks go."""
    return _INVISIBLE.sub("", text)
