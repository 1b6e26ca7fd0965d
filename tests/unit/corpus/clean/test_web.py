"""Entities, layout tags and what extractors leave in text from web pages."""

from dataclasses import replace

import pytest

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.web import clean_extracted, clean_web, plain_web
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
