"""Laws of cleaning a page: what a reader sees stays, markup goes, and no page is too broken."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.document import Document


def page(text: str, title: str = "题") -> Document:
    return Document(id="zhwiki:1", source="zhwiki", text=text, title=title, url="u", licence="l")


def cleaned(text: str) -> str:
    result = clean_wikitext(page(text), CleanContext())
    return result if isinstance(result, str) else result.text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''茶'''是''饮料''", "茶是饮料"),
        ("[[茶叶|茶]]和[[水]]与[[杯子 (器皿)#形状|杯]]", "茶和水与杯"),
        ("[[:en:Tea|英文]]，[[#种类]]", "英文，种类"),
        ("见[http://a.example.org/x 官方 网站]与[http://a.example.org]。", "见官方 网站与。"),
        ("上[[File:a.jpg|thumb|图注[[链接]]，[http://a 外]]]下", "上下"),
        ("[[分类:茶]]正文[[Category:饮料|*]][[en:Tea]][[zh-yue:茶]]", "正文"),
        ("茶<ref>注</ref>叶<ref name=a />好<ref name=b>[[x]]</ref>", "茶叶好"),
        ("甲<!-- 隐 -->乙", "甲乙"),
        ("水是H<sub>2</sub>O，面积10<sup>2</sup>米", "水是H2O，面积10²米"),
        ("一<br />二", "一\n二"),
        ("* 甲\n** 乙\n# 丙\n; 词\n: 释", "甲\n乙\n丙\n词\n释"),
        ("A&nbsp;B &lt;b&gt; &amp;amp; &#33590;", "A B <b> &amp; 茶"),
        ("__NOTOC__正文__无目录__", "正文"),
        ("用<code>main()</code>和数组a[]", "用main()和数组a[]"),
        ("设<math>x^{-{2}}</math>，<math>\\,</math>末", "设$x^{-{2}}$，$\\,$末"),
        ("<nowiki>''[[不是链接]]'' -{x}-</nowiki>", "''[[不是链接]]'' -{x}-"),
        ("甲\n<gallery>\nFile:a.jpg|图\n</gallery>\n乙", "甲\n乙"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢（かん）字"),
    ],
)
def test_markup_goes_and_its_words_stay(wikitext: str, text: str) -> None:
    assert cleaned(wikitext) == text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("茶（{{lang-en|tea}}）", "茶（英语：tea）"),
        ("{{lang|ja|お茶}}很好", "お茶很好"),
        ("{{le|网络草案|Internet Draft}}和{{link-en|超时|Timeout|超时了}}", "网络草案和超时了"),
        ("{{tsl|en|Abstract type|抽象型}}与{{link-hu|甲|x}}", "抽象型与甲"),
        ("{{nowrap|一{{lang|en|b}}二}}", "一b二"),
        ("读作{{ruby|漢|かん}}", "读作漢（かん）"),
        ("长{{convert|5|km|mi}}，宽{{convert|3|-|4|m|ft}}", "长5公里，宽3–4米"),
        ("{{frac|1|2}}与{{val|5|e=3|u=kg}}", "1/2与5×10^3 kg"),
        ("他（{{bd|1900年|1月1日|1980年|2月2日}}）", "他（1900年1月1日－1980年2月2日）"),
        ("{{CHN}}队对{{flag|日本}}队", "中国队对日本队"),
        ("《{{PAGENAME}}》", "《题》"),
        ("据{{cite book|title=书|author=人}}说{{fact|time=2020}}。", "据说。"),
        ("问题{{来源请求|日期}}{{who|谁}}。", "问题。"),
        ("见{{未知的|java/lang|對象}}一词", "见一词"),  # unknown: nothing, never a guess
        ("正文\n{{未知的导航|甲|乙}}\n", "正文"),  # unknown alone on a line: a box
        ("{{Infobox\n|name=[[茶]]\n|x={{nowrap|a}}\n}}\n正文", "正文"),
        ("{{#if:a|b|c}}正文{{DEFAULTSORT:x}}", "b正文"),
        ("{{quote|诗句|作者}}", "诗句——作者"),
    ],
)
def test_inline_templates_keep_their_text_and_boxes_go(wikitext: str, text: str) -> None:
    assert cleaned(wikitext) == text


def test_a_traditional_page_gets_its_own_branch_and_language_names_and_keeps_its_other_fields() -> None:
    raw = page("這個-{zh-cn:软件;zh-tw:軟體}-（{{lang-en|software}}）很實用，專門設計給學習者。")
    text = "這個軟體（英語：software）很實用，專門設計給學習者。"
    assert clean_wikitext(raw, CleanContext()) == replace(raw, text=text, variant="zh-Hant")


def test_conversion_is_resolved_inside_a_link_or_a_template_and_rules_for_the_page_change_no_word() -> None:
    assert cleaned("[[串流|-{zh-tw:串流;zh-cn:流传输}-]]的{{lang|en|-{x}-}}设计") == "流传输的x设计"
    assert cleaned("{{noteTA|1=zh-cn:接口;zh-tw:介面}}接口由-{于}-尔班设计。") == "接口由于尔班设计。"


def test_data_tables_become_rows_and_layout_tables_go() -> None:
    data = '{| class="wikitable"\n|+ 标题\n! 名称 !! 意思\n|-\n| [[甲]] || {{nowrap|第一}}\n|-\n| 乙\n| 第二<br>行\n|}'
    assert cleaned(f"前\n{data}\n后") == "前\n标题\n名称 | 意思\n甲 | 第一\n乙 | 第二 行\n后"
    assert cleaned("前\n{|\n| 左\n| 右\n|}\n后") == "前\n后"
    assert cleaned('前\n{| class="infobox"\n! 名\n| 值\n|-\n! 名\n| 值\n|}\n后') == "前\n后"
    assert cleaned('前\n{| class="wikitable"\n| 1 || 2\n|-\n| 3 || 4\n|}\n后') == "前\n后"


def test_code_keeps_its_lines_and_indentation() -> None:
    assert cleaned('甲\n<source lang="c">\nif (a < b) {\n    c[[0]] = ""; // -{x}-\n}\n</source>\n乙') == (
        '甲\nif (a < b) {\n    c[[0]] = ""; // -{x}-\n}\n乙'
    )


def test_sections_without_prose_and_headings_without_text_go() -> None:
    prose = "导言\n== 历史 ==\n=== 古代 ===\n很久。\n=== 近代 ===\n"
    rest = "== 參考資料 ==\n* 书\n=== 书目 ===\n* 书\n== 注释与外部链接 ==\nx"
    assert cleaned(prose + rest) == "导言\n历史\n古代\n很久。"


def test_a_heading_inside_an_open_template_does_not_cut_it() -> None:
    assert cleaned("{{Infobox\n|a=\n== 不是标题 ==\n|b=c\n}}\n正文\n== 标题 ==\n后文") == "正文\n标题\n后文"


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("数学（{{cite|a}}）是（，又称X）学", "数学是（又称X）学"),
        ("名（；德语：；法语：，拉丁）", "名（拉丁）"),
        ("书《{{fact}}》和「」与()", "书和与"),
        ("甲{{fact}} ，乙{{fact}}、、丙", "甲，乙、丙"),
        ("前[[未闭合 后", "前未闭合 后"),
        ("前[[链接|词 后", "前词 后"),
        ("前{{lang|en|词 后", "前en|词 后"),
        ("前]]后}}末", "前后末"),
        ("{{Infobox\n| name = 茶\n| x = y\n'''茶'''是饮料", "茶是饮料"),
        ("前<ref>没有结尾 后", "前没有结尾 后"),
        ("前<!-- 没有结尾 后", "前 没有结尾 后"),
        ("前<math>x 后", "前x 后"),
        ("前[http://a 没有结尾\n后", "前没有结尾\n后"),
        ("{|\n| 甲\n后文", "后文"),
        ("[[File:a.svg|400px]]图]]后", "图后"),
    ],
)
def test_text_around_removed_and_broken_markup_stays_and_is_tidied(wikitext: str, text: str) -> None:
    assert cleaned(wikitext) == text


def test_disambiguation_pages_are_told_by_their_template_or_title_and_links_to_them_are_none() -> None:
    for template in ("{{disambig}}", "{{消歧义页}}", "{{Disambig|cat=x}}", "{{人名消歧義}}", "{{hndis}}"):
        assert (
            clean_wikitext(page(f"'''甲'''可以指：\n* [[乙]]\n== 參見 ==\n{template}"), CleanContext())
            == "disambiguation"
        ), template
    assert clean_wikitext(page("* [[乙]]", title="甲 (消歧义)"), CleanContext()) == "disambiguation"
    assert cleaned("{{消歧义链接}}正文。") == "正文。"


@pytest.mark.parametrize("wikitext", ["", "  \n", "{{Infobox|a=b}}", "[[Category:x]]", "== 标题 ==", "<ref>x</ref>"])
def test_a_page_without_text_is_empty(wikitext: str) -> None:
    assert clean_wikitext(page(wikitext), CleanContext()) == "empty"


_PIECES = [
    "{{", "}}", "[[", "]]", "{|", "|}", "\n|-\n", "|", "||", "!", "\n", "==", "'''", "<ref>", "</ref>", "<!--", "-->",
    "<math>", "</math>", "-{", "}-", "zh-cn:", ";", "=>", "H|", "字", "abc ", "http://x.y ", "[http://a.b x]",
    "<br>", "<table>", "</table>", "<td>", "*", "#", "{{{", "}}}", "File:", "lang|en|", "nowrap|", "&amp;",
    "<pre>", "</pre>", "{{noteTA|1=", "<", ">", "\ufdd0", "\ufdd1",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=120).map("".join))
def test_any_tangle_of_markup_is_cleaned_without_leftovers(wikitext: str) -> None:
    text = cleaned(wikitext)
    if "<math>" not in wikitext and "<pre>" not in wikitext:
        assert not any(mark in text for mark in ("[[", "]]", "{{", "}}", "\ufdd0", "\ufdd2"))
    assert "\n\n" not in text or "<pre>" in wikitext or "<math>" in wikitext


def test_a_section_on_sources_goes_when_it_lists_them_and_stays_when_it_is_prose() -> None:
    prose = "海盐来自海水，内陆的盐来自地下的卤水和干涸的湖泊，人们把它们晒干或者熬干，再运到各地去卖。"
    listed = f"正文在此。\n== 来源 ==\n* [http://a.example 某报]{prose}\n== 历史 ==\n历史悠久。"
    assert cleaned(listed) == "正文在此。\n历史\n历史悠久。"
    assert cleaned(f"正文在此。\n== 来源 ==\n=== 海盐 ===\n{prose}") == f"正文在此。\n来源\n海盐\n{prose}"
