"""Laws of `-{ }-`, as MediaWiki's ConverterRule defines them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.corpus.clean.conversion import resolve_conversion


@pytest.mark.parametrize(
    ("markup", "script", "shown"),
    [
        ("载人-{zh-cn:航天; zh-tw:航太; zh-hk:太空;}-计划", "zh-Hans", "载人航天计划"),
        ("载人-{zh-cn:航天; zh-tw:航太; zh-hk:太空;}-计划", "zh-Hant", "载人航太计划"),
        ("-{zh-hans:内存;zh-hant:記憶體}-", "zh-Hans", "内存"),  # no branch of one's own: the script's
        ("-{zh-hans:内存;zh-hk:記憶體}-", "zh-Hant", "記憶體"),
        ("-{zh-sg:物质科学;zh-tw:材料科學}-", "zh-Hans", "物质科学"),  # then the other regions of the script
        ("-{zh-hk:士碌架;zh-tw:司諾克}-", "zh-Hans", "士碌架"),  # then whatever there is: never nothing
        ("-{zh:任何}-", "zh-Hant", "任何"),
    ],
)
def test_each_script_sees_its_own_word_or_the_nearest_and_never_nothing(markup: str, script: str, shown: str) -> None:
    assert resolve_conversion(markup, script) == shown


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


@pytest.mark.parametrize(
    "piece", ["-{", "-{A|", "-{zh-cn:a;", ";zh-cn:", "=>", "-{;", "-{a;" + " " * 1000, "-{" + "x" * 1000, "}-"]
)
def test_time_grows_with_the_text_only(piece: str) -> None:
    started = time.process_time()
    for body in (
        piece * (400_000 // len(piece)),
        "-{A|a" + " " * 200_000 + "b}-",
        "-{" * 5000 + "x" * 200_000 + "}-" * 5000,
    ):
        resolve_conversion(body, "zh-Hans")
    assert time.process_time() - started < 4


def test_ten_thousand_open_markers_take_no_time() -> None:
    assert resolve_conversion("-{" * 100_000 + "字", "zh-Hans") == "字"
