"""Laws of the one pass over a page: linear time on every input, no markup left at any depth, nothing counted twice."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.document import Document


def clean(text: str) -> tuple[str, CleanContext]:
    context = CleanContext()
    result = clean_wikitext(Document("zhwiki:1", "zhwiki", text, "题"), context)
    return result if isinstance(result, str) else result.text, context


def seconds(text: str) -> float:
    started = time.process_time()
    clean(text)
    return time.process_time() - started


_REPEATED = [
    "{{", "[[", "\n{|\n", "<ref>", "<math>", "-{", "[http://a ", "[http://a [[b]] ", "{{nowrap|", "<table><td>",
    "（", "=a   ", "\n=a ", "<!--", "{{{", "[[a\nb]]", "\n|", "\n|-", "||", "!!", "]]", "}}", "]", "\n|}", "<a ",
    "&#", "__", "（，", " ", "'''", "[[File:a|", "<nowiki>", "</ref>", "<ref name=a", "-{zh-cn:", "{{noteTA|",
    "[[en:", "<td>", "</table>", "{{!}}", "\n{|\n|a||b\n|-\n", "<sup>2</sup>", "<span style=display:none>", "（德语：",
    "\n== 参考 ==\n* [http://a b]", "\u200d", "|", "{{age}}", "（{{age}}",
    "{{age}}，", "甲{{无此模板}}",
]  # fmt: skip
_NESTED = [
    ("{{nowrap|字", "}}"), ("[[a|b", "]]"), ("\n{|\n|字\n", "\n|}"), ("<table><tr><td>", "</table>"),
    ("-{zh-cn:", "}-"), ("（", "）"), ("{{{a|", "}}}"), ("<ref>", "</ref>"), ("{{#if:", "}}"), ("{{lang|en|", "字}}"),
    ("{{无此模板|", "}}"), ("{{nowrap|[[a|", "]]}}"), ("[[", "}}"), ("{{", "]]"), ("[http://a ", "]"),
]  # fmt: skip


@pytest.mark.parametrize("piece", _REPEATED)
def test_a_page_of_one_mark_repeated_takes_no_more_than_a_moment(piece: str) -> None:
    assert seconds(piece * (60_000 // len(piece)) + "字") < 2


@pytest.mark.parametrize(("opening", "closing"), _NESTED)
def test_thousands_of_marks_inside_each_other_leave_no_markup_and_take_a_moment(opening: str, closing: str) -> None:
    count = 40_000 // len(opening + closing)
    started = time.process_time()
    text, _ = clean(f"前{opening * count}深{closing * count}后")
    assert time.process_time() - started < 2
    assert text[0] == "前"
    assert "后" in text
    assert not any(mark in text for mark in ("{{", "}}", "[[", "]]", "{|", "|}", "<t", "lang", "-{"))


def test_a_long_table_in_a_long_section_keeps_its_rows() -> None:
    rows = "".join(f"|-\n| {year} || [[得主{year}]]的名字与介绍\n" for year in range(6000))
    text, _ = clean(f'{{| class="wikitable"\n! 年份 !! 得主\n{rows}|}}\n后文')
    assert text.startswith("年份 | 得主\n0 | 得主0的名字与介绍\n")
    assert text.endswith("5999 | 得主5999的名字与介绍\n后文")


@pytest.mark.parametrize(
    ("wikitext", "kind", "characters", "pieces"),
    [
        ("茶<ref>注<ref name=a/>释</ref>叶", "references", 26, 2),
        ("茶<!-- 隐 -->叶", "comments", 10, 1),
        ("茶[[File:a.jpg|图]]叶", "files", 16, 1),
        ("茶[[Category:饮料]]叶", "categories", 15, 1),
        ("茶[[茶叶|叶]]", "links", 7, 1),
        ("茶{{无此模板|[[a]]}}叶", "templates", 10, 1),
        ("茶{{lang|en|[[茶|tea]]}}叶", "links", 6, 1),
        ("茶{{lang|en|[[茶|tea]]}}叶", "templates", 12, 1),
        ("茶\n{|\n| 1 || 2\n|}\n叶", "tables", 15, 1),
        ("茶<math>x</math>叶", "formulas", 11, 1),
        ("茶\n== 参见 ==\n* [[甲]]", "sections", 4, 1),
        ("茶<gallery>\na.jpg\n</gallery>叶", "files", 26, 1),
        ("茶<score>c d</score>叶", "graphics", 18, 1),
    ],
)
def test_what_is_taken_out_is_counted_by_name(wikitext: str, kind: str, characters: int, pieces: int) -> None:
    taken = clean(wikitext)[1].taken
    assert (taken.characters[kind], taken.pieces[kind]) == (characters, pieces)


_PIECES = [
    "{{", "}}", "[[", "]]", "\n{|", "\n|}", "\n|-\n", "\n|", "|", "||", "!!", "\n!", "\n", "\n== 题 ==\n",
    "\n== 参见 ==\n", "'''", "<ref>", "</ref>", "<ref/>", "<!--", "-->", "<math>", "</math>", "-{", "}-", "zh-cn:",
    "字", "茶叶", "[http://a.b ", "]", "<table>", "</table>", "<td>", "\n*", "{{{", "}}}", "File:", "lang|en|",
    "nowrap|", "<nowiki>", "</nowiki>", "&lt;", 'class="wikitable"', "[[甲|乙]]", "{{lang|en|x}}", "{{无此模板|甲}}",
    "[[分类:甲]]", "<br>",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=60).map("".join))
@example("][http://a.b ]")
@example("\n{|\n|甲{{lang|en|[[乙|丙]]\n|}字}}\n== 参见 ==\n[[a|\n{|\n|字]]")
def test_nothing_is_counted_twice(wikitext: str) -> None:
    """What remains when text and named losses are taken from the page is plain markup: it is never less than nothing,
    but for the line ends that headings and tables gain."""
    text, context = clean(wikitext)
    if text in ("empty", "disambiguation"):
        return
    rest = len(wikitext) - len(text) - context.taken.characters.total()
    assert rest >= -wikitext.count("\n{|") - wikitext.count("<table>")
    assert not any(mark in text for mark in ("[[", "]]", "{{", "}}", "\ufdd6", "\ufdd7")) or "</" in wikitext


def test_templates_without_a_rule_inside_of_sentences_are_counted_by_name() -> None:
    _, context = clean("高{{无此|5}}米，重{{无此}}克，{{lang|en|a}}在{{Foo_bar|[[x]]}}。\n{{infobox|x}}\n{{navbox}}")
    assert context.taken.unknown == {"无此": 2, "foo bar": 1}
