"""Entities, layout tags and what extractors leave in text from web pages."""

from collections.abc import Callable
from dataclasses import replace
from time import process_time

import pytest

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.web import clean_extracted, clean_page, clean_web, plain_web
from megadec.corpus.document import Document


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("好&hellip;&hellip;", "好……"),
        ("&amp;nbsp;双重", "\xa0双重"),
        ("一<br/>二</p><p>三", "一\n二\n三"),
        ("<a href='x'>链接</a>&#8220;引&#x201d;", "链接“引”"),
        ("a<b 且 AT&T，<3", "a<b 且 AT&T，<3"),
        ("vector<int> & x", "vector<int> & x"),
        ("<![CDATA[好]]>", "好"),
    ],
)
def test_entities_and_layout_tags_go_and_other_signs_stay(raw: str, plain: str) -> None:
    assert plain_web(raw, CleanContext()) == plain


def test_a_document_of_tags_is_empty() -> None:
    assert clean_web(Document("1", "s", "<p>&nbsp;</p>"), CleanContext()) == "empty"


RAW = Document("1", "wiki", "数学\n\n数学（）是-{zh-hans:软件; zh-hant:軟體}-的基础（，）。", title="数学")


def test_what_extractors_leave_behind_is_taken_out() -> None:
    assert clean_extracted(RAW, CleanContext()) == replace(RAW, text="数学是软件的基础。", variant="zh-Hans")


def test_stand_ins_for_formulas_tags_and_one_sided_brackets_go() -> None:
    text = "数学\n\n数学（；德语：）是-{zh-cn:域;zh-tw:体}-论()，碳-12(formula_1)<br>与「<nowiki>http://</nowiki>」。\n\n\n"
    plain = "数学是域论，碳-12\n与「http://」。"
    assert clean_extracted(replace(RAW, text=text), CleanContext()) == replace(RAW, text=plain, variant="zh-Hans")


def test_a_text_that_only_repeats_its_title_is_empty() -> None:
    assert clean_extracted(replace(RAW, text="数学\n"), CleanContext()) == "empty"
    assert clean_extracted(Document(id="1", source="w", text="-{H|zh-cn:a;zh-tw:b}-（）"), CleanContext()) == "empty"


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("&lt;p&gt;第一段。&lt;/p&gt;&lt;p&gt;第二段。&lt;/p&gt;&nbsp没有分号", "第一段。\n第二段。\n\xa0没有分号"),
        ("&amp;lt;div&amp;gt;两次&amp;lt;/div&amp;gt;", "两次"),
        ("教程：&lt;p&gt;标签表示段落", "教程：<p>标签表示段落"),
        (
            "<p>一<p>二<script>var a = '<b>';</script><STYLE>.a{}</STYLE><!-- 注释 --><iframe src='x'></iframe>",
            "一\n二",
        ),
        ('<a title="a>b">链接</a><o:p></o:p><img src=x/>', "链接"),
        ("<table><tr><td>姓名</td><td>年龄</td></tr></table>", "姓名  年龄"),
        ('被截断的<a href="http://e.org', "被截断的"),
        ("若a<b 且 c>d，则", "若a<b 且 c>d，则"),
        ("在<script>标签里写", "在标签里写"),
    ],
)
def test_html_of_every_kind_becomes_lines_of_text(raw: str, plain: str) -> None:
    assert plain_web(raw, CleanContext()) == plain


def test_what_was_taken_out_of_html_is_counted_by_name() -> None:
    context = CleanContext()
    plain_web("<p>文<script>1</script><!-- 2 --></p>", context)
    assert dict(context.taken.characters) == {"scripts and styles": 18, "HTML comments": 10, "HTML tags": 5}


@pytest.mark.parametrize("unit", ["<a ", '<a href="', "<script>", "<!--", "&lt;p ", "<p", "<b x"])
def test_unclosed_markup_takes_linear_time(unit: str) -> None:
    """Sixteen times the text takes about sixteen times as long; what is quadratic takes 256 times."""

    def seconds(count: int) -> float:
        began = process_time()
        plain_web(unit * count, CleanContext())
        return process_time() - began

    assert seconds(32_000) < 100 * max(seconds(2_000) for _ in range(3))


PAGE = """<!DOCTYPE html><html><head><meta charset="utf-8"><title>公园开放_新闻网</title><script>var x;</script></head>
<body><div class="header"><ul><li><a href="/">首页</a></li><li><a href="/s">体育</a></li></ul></div>
<div class="content"><h1>公园开放</h1><p>　　今天的新闻说，城市里的公园在春天开放了，许多市民带着孩子前去游玩。
<p>　　湖边的花开得正好，大家拍照留念，心情愉快，傍晚时分才陆续回家。</div>
<div class="footer">Copyright 新闻网 <a>联系我们</a></div></body></html>"""


def test_a_list_of_an_article_stays_and_one_of_links_goes() -> None:
    links = "<ul><li><a href='/'>首页</a></li><li><a href='/n'>新闻</a></li></ul>"
    steps = "<ul><li>先用开水烫一遍杯子，再放入三克茶叶。</li><li>水温八十五度，见<a href='/b'>热水</a>一节。</li></ul>"
    prose = "<p>泡茶要先准备好茶叶和热水，下面是步骤，请按顺序来做，不要着急。</p>"
    page = f"<html><body><nav>{links}</nav><article><h1>泡茶</h1>{prose}{steps}{prose}</article></body></html>"
    cleaned = clean_page(Document("1", "web", page), CleanContext())
    assert isinstance(cleaned, Document)
    assert "再放入三克茶叶。" in cleaned.text
    assert "见热水一节。" in cleaned.text
    assert "首页" not in cleaned.text


@pytest.mark.parametrize("clean", [clean_page, clean_web])
def test_of_a_whole_page_the_article_stays(clean: Callable[[Document, CleanContext], Document | str]) -> None:
    document = clean(Document("1", "html", PAGE), CleanContext())
    assert isinstance(document, Document)
    assert document.title == "公园开放_新闻网"
    assert "前去游玩。\n\n　　湖边的花" in document.text
    assert not any(word in document.text for word in ("首页", "Copyright", "var x", "<"))
    assert clean(Document("1", "html", "<html><body></body></html>"), CleanContext()) == "empty"
