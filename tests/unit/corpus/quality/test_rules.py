"""The quality rules for Chinese and the reasons they give."""

from dataclasses import fields

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.quality.rules import RULES, FilterOptions, QualityRules, choose_rules, drop_reason, judge

GOOD = (
    "清晨的雾从河面上升起来，船夫把缆绳解开，慢慢向对岸划去。"
    "岸边的集市已经热闹了，卖菜的人一边摆摊一边说着昨夜那场大雨。"
)
BOILERPLATE = """版权所有，未经授权不得转载。请登录后查看。
点击进入下一页，设为首页，加入收藏。
扫一扫下面的二维码，关注我们的公众号，每天都有新的内容。
谢谢大家阅读。"""
ARTICLE = RULES["article"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (GOOD, ""),
        ("", "empty"),
        (" \n", "empty"),
        (GOOD[:30], "too_short"),
        ("This page is only available in English, and has been so for years. " * 2, "low_han"),
        (GOOD + "\ufffd" * 3, "garbled"),
        ("锟斤拷烫烫烫" + GOOD, "garbled"),
        (GOOD[:30] + "！？。……——★★★☆☆" * 8, "few_letters"),
        ("\n".join([GOOD, GOOD]), "repeated_lines"),
        (GOOD[:8] + "没有送水" * 20, "repeated_ngrams"),
        (BOILERPLATE, "boilerplate"),
    ],
)
def test_each_kind_of_bad_text_has_its_reason(text: str, reason: str) -> None:
    assert drop_reason(text, ARTICLE) == reason


def test_the_thresholds_can_be_set_one_by_one() -> None:
    assert drop_reason(GOOD, QualityRules(max_characters=20)) == "too_long"
    assert drop_reason(GOOD.rstrip("。"), QualityRules(require_sentence_end=True)) == "no_sentence_end"
    assert drop_reason(GOOD, QualityRules(require_sentence_end=True)) == ""


@pytest.mark.parametrize("text", ["味道好，送餐快", "两天价网站背后重重迷雾", "好吃好吃", "iPhone 8 手机壳 5.5 英寸"])
def test_titles_and_comments_pass_the_rules_for_short_text(text: str) -> None:
    assert drop_reason(text, RULES["short"]) == ""
    assert drop_reason(text, ARTICLE) == "too_short"


def test_every_text_passes_no_rules() -> None:
    for text in ("a", "\ufffd" * 9, "!" * 99, "重复" * 99):
        assert drop_reason(text, RULES["none"]) == ""


def test_every_rule_tells_its_figure_and_its_threshold() -> None:
    text = "\n".join([GOOD, GOOD, "锟斤拷"])
    found = {one.rule: one for one in judge(text, ARTICLE)}
    assert [one.reason for one in found.values() if not one.passed] == ["garbled", "repeated_lines"]
    assert found["min_characters"].value == 2 * len(GOOD) + 3
    assert found["max_garbled_fraction"].value == pytest.approx(3 / (2 * len(GOOD) + 3))
    assert found["max_repeated_line_fraction"] == (
        "repeated_lines", "max_repeated_line_fraction", pytest.approx(0.49, abs=0.01), 0.3, False
    )  # fmt: skip
    thresholds = {field.name for field in fields(QualityRules)} - {"require_sentence_end"}
    assert found.keys() == thresholds


def test_repeated_ngrams_are_the_same_share_in_short_and_in_long_texts() -> None:
    for repeats in (10, 100):  # the second is counted by hashes
        text = "".join(chr(0x4E00 + number) for number in range(40)) * repeats
        [value] = [one.value for one in judge(text, ARTICLE) if one.reason == "repeated_ngrams"]
        assert value == pytest.approx(1 - 40 / (40 * repeats - 7))


def test_what_is_given_stands_over_the_source_s_rules() -> None:
    assert choose_rules(FilterOptions(), "short") == RULES["short"]
    assert choose_rules(FilterOptions(rules="article", min_characters=7), "short").min_characters == 7
    assert choose_rules(FilterOptions(min_han_fraction=0.0), "article").min_han_fraction == 0.0


def test_an_unknown_set_of_rules_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"filter.rules='shrot'.*did you mean 'short'"):
        choose_rules(FilterOptions(rules="shrot"), "article")


def test_every_threshold_is_an_option_and_the_reverse() -> None:
    assert {field.name for field in fields(QualityRules)} | {"rules", "classifier", "min_quality"} == {
        field.name for field in fields(FilterOptions)
    }
