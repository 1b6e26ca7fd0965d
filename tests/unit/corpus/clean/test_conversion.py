"""Laws of `-{ }-` and NoteTA, as MediaWiki's ConverterRule defines them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.corpus.clean.conversion import (
    FIXED_END,
    FIXED_START,
    apply_rules,
    page_rules,
    parse_rule,
    resolve_conversion,
)

WORDS = "-{zh-cn:航天; zh-tw:航太; zh-hk:太空;}-"


@pytest.mark.parametrize(
    ("variant", "shown"),
    [
        ("zh-Hans", "航天"),
        ("zh-Hant", "航太"),
        ("zh-cn", "航天"),
        ("zh-tw", "航太"),
        ("zh-HK", "太空"),
        ("zh-mo", "太空"),
    ],
)
def test_each_variant_sees_its_own_word(variant: str, shown: str) -> None:
    assert resolve_conversion(f"载人{WORDS}计划", variant) == f"载人{shown}计划"


@pytest.mark.parametrize(
    ("markup", "variant", "shown"),
    [
        ("-{zh-hans:内存;zh-hant:記憶體}-", "zh-cn", "内存"),  # no branch of one's own: the script's
        ("-{zh-hans:内存;zh-hant:記憶體}-", "zh-hk", "記憶體"),
        ("-{zh-sg:物质科学;zh-tw:材料科學}-", "zh-cn", "物质科学"),  # then the other regions of the script
        ("-{zh-hk:士碌架;zh-tw:司諾克}-", "zh-cn", "士碌架"),  # then whatever there is: never nothing
        ("-{zh:任何}-", "zh-tw", "任何"),
    ],
)
def test_a_missing_branch_falls_back_and_is_never_empty(markup: str, variant: str, shown: str) -> None:
    assert resolve_conversion(markup, variant) == shown


@pytest.mark.parametrize(
    ("markup", "shown"),
    [
        ("-{于}-尔班", "于尔班"),
        ("-{R|里程}-", "里程"),
        ("-{zh-hant;zh-hk|只}-", "只"),
        ("-{A|zh-cn:蓝屏; zh-tw:藍白當機}-了", "蓝屏了"),
        ("-{S|zh-cn:甲;zh-tw:乙}-", "甲"),
        ("-{H|zh-cn:宏;zh-tw:巨集}-正文", "正文"),
        ("-{T|zh-cn:题;zh-tw:題}-正文", "正文"),
        ("-{-|zh-cn:宏;zh-tw:巨集}-正文", "正文"),
        ("-{N|zh-tw}-", "臺灣"),
        ("-{D|zh-cn:宏;zh-tw:巨集}-", "大陆：宏；臺灣：巨集"),
        ("-{}-", ""),
        ("-{ 中文：说明 }-", " 中文：说明 "),
        ("-{A|巨集=>zh-cn:宏}-", "宏"),
        ("-{巨集=>zh-tw:宏}-", "巨集"),
        ("-{[[页面|显示]]}-", "[[页面|显示]]"),
        ("-{zh-cn:&quot;甲&quot;;zh-tw:乙}-", "&quot;甲&quot;"),
    ],
)
def test_flags_show_what_mediawiki_shows(markup: str, shown: str) -> None:
    assert resolve_conversion(markup, "zh-Hans") == shown


def test_nested_markup_is_resolved_from_the_inside() -> None:
    assert resolve_conversion("-{zh-cn:甲-{乙}-丙;zh-tw:丁-{zh-cn:x;zh-tw:y}-}-", "zh-Hans") == "甲乙丙"
    assert resolve_conversion("-{zh-cn:甲-{乙}-丙;zh-tw:丁-{zh-cn:x;zh-tw:y}-}-", "zh-Hant") == "丁y"


def test_templates_and_parameters_inside_do_not_end_the_markup() -> None:
    assert resolve_conversion("-{zh-cn:{{lang|en|a}}-b;zh-tw:c}-", "zh-Hans") == "{{lang|en|a}}-b"
    assert resolve_conversion("-{{{名}}}-", "zh-Hans") == "{{名}}"
    assert resolve_conversion("{{lang|en|x}}-{于}-", "zh-Hans") == "{{lang|en|x}}于"


def test_unclosed_markup_loses_its_marker_and_keeps_its_text() -> None:
    assert resolve_conversion("前-{zh-cn:甲 后-{于}-尾", "zh-Hans") == "前zh-cn:甲 后于尾"
    assert resolve_conversion("前}-后", "zh-Hans") == "前}-后"


@given(st.text(alphabet="甲乙 ab", max_size=30), st.sampled_from(["zh-Hans", "zh-Hant"]))
def test_plain_markup_never_changes_its_text(text: str, variant: str) -> None:
    assert resolve_conversion(f"-{{{text}}}-", variant) == text


@given(st.text(alphabet="-{}|;:=>zhcntw 字[]\n", max_size=200))
def test_any_text_is_resolved_and_gets_no_longer(text: str) -> None:
    assert len(resolve_conversion(text, "zh-Hant")) <= len(text)


def test_ten_thousand_open_markers_take_no_time() -> None:
    assert resolve_conversion("-{" * 100_000 + "字", "zh-Hans") == "字"


def test_note_rules_and_hidden_rules_of_a_page_are_collected() -> None:
    page = (
        "{{noteTA|G1=IT|T=zh-cn:题;zh-tw:題|1=zh-cn:接口; zh-tw:介面;|2=宏=>zh-tw:巨集}}-{H|zh-cn:类;zh-tw:類別}-正文"
    )
    rules = page_rules(page)
    assert [rule.words for rule in rules if rule.words] == [
        {"zh-cn": "接口", "zh-tw": "介面"},
        {"zh-cn": "类", "zh-tw": "類別"},
    ]
    assert rules[1].one_way == {("宏", "zh-tw"): "巨集"}


def test_rules_are_applied_longest_first_and_not_inside_fixed_text() -> None:
    rules = [parse_rule("zh-cn:接口;zh-tw:介面"), parse_rule("zh-cn:接口卡;zh-tw:介面卡"), parse_rule("宏=>zh-tw:巨集")]
    text = f"接口卡与接口和宏，{FIXED_START}接口{FIXED_END}"
    assert apply_rules(text, rules, "zh-Hant") == f"介面卡与介面和巨集，{FIXED_START}接口{FIXED_END}"
    assert apply_rules("介面卡", rules, "zh-Hans") == "接口卡"
    assert apply_rules("宏", rules, "zh-Hans") == "宏"


def test_a_word_that_holds_another_variants_word_is_not_replaced_twice() -> None:
    assert (
        apply_rules("電腦和腦", [parse_rule("zh-cn:脑;zh-tw:電腦"), parse_rule("zh-cn:a;zh-tw:腦")], "zh-Hant")
        == "電腦和腦"
    )


def test_fixed_marks_stand_around_the_outermost_text_only() -> None:
    assert resolve_conversion("-{zh-cn:甲-{乙}-}-", "zh-Hans", mark_fixed=True) == f"{FIXED_START}甲乙{FIXED_END}"
