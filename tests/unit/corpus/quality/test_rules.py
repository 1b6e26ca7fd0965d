"""The quality rules for Chinese and the reasons they give."""

from dataclasses import fields

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.quality.rules import RULES, FilterOptions, QualityRules, choose_rules, drop_reason

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


def test_what_is_given_stands_over_the_source_s_rules() -> None:
    assert choose_rules(FilterOptions(), "short") == RULES["short"]
    assert choose_rules(FilterOptions(rules="article", min_characters=7), "short").min_characters == 7
    assert choose_rules(FilterOptions(min_han_fraction=0.0), "article").min_han_fraction == 0.0


def test_an_unknown_set_of_rules_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"filter.rules='shrot'.*did you mean 'short'"):
        choose_rules(FilterOptions(rules="shrot"), "article")


def test_every_threshold_is_an_option_and_the_reverse() -> None:
    assert {field.name for field in fields(QualityRules)} | {"rules"} == {field.name for field in fields(FilterOptions)}
