"""Laws of telling Simplified from Traditional and of converting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import ConfigError
from megadec.corpus.clean.variant import dominating_variant, script_counts, to_variant, variant_of

SIMPLIFIED = "国家图书馆里的书很多，读者从各地赶来，里面还有许多珍贵的文献。"
TRADITIONAL = "國家圖書館裡的書很多，讀者從各地趕來，裡面還有許多珍貴的文獻。"


def test_each_script_is_told_by_its_own_characters() -> None:
    assert variant_of(SIMPLIFIED) == "zh-Hans"
    assert variant_of(TRADITIONAL) == "zh-Hant"
    assert variant_of(SIMPLIFIED + TRADITIONAL) == "mixed"


@pytest.mark.parametrize("text", ["", "abc 123", "中文文本", "皇后在公里外的台上", "乾坤", "\ud800"])
def test_text_without_characters_of_one_script_has_no_variant(text: str) -> None:
    assert variant_of(text) == ""


def test_a_name_in_the_other_script_does_not_make_a_page_mixed() -> None:
    assert variant_of(SIMPLIFIED * 5 + "張學友") == "zh-Hans"


@given(st.lists(st.sampled_from([SIMPLIFIED, TRADITIONAL, "abc"]), max_size=6))
def test_counts_add_up_over_lines(lines: list[str]) -> None:
    parts = [script_counts(line) for line in lines]
    assert script_counts("\n".join(lines)) == (sum(s for s, _ in parts), sum(t for _, t in parts))


def test_the_dominating_script_is_the_one_with_more_characters() -> None:
    assert dominating_variant(TRADITIONAL * 2 + SIMPLIFIED) == "zh-Hant"
    assert dominating_variant("abc") == "zh-Hans"


@pytest.mark.parametrize(
    ("source", "target", "text", "expected"),
    [
        ("zh-Hant", "zh-Hans", "乾坤、乾燥、干涉", "乾坤、干燥、干涉"),
        ("zh-Hant", "zh-Hans", "皇后後來發財，頭髮白了", "皇后后来发财，头发白了"),
        ("zh-Hans", "zh-Hant", "皇后后来发财，头发白了", "皇后後來發財，頭髮白了"),
        ("zh-Hans", "zh-Hant", "乾坤、干燥、干涉", "乾坤、乾燥、干涉"),
        ("zh-Hant", "zh-Hans", "看著、張著、原著", "看着、张著、原著"),  # names are safe
        ("zh-Hans", "zh-TW", "看着里面", "看著裡面"),
        ("zh-Hans", "zh-HK", "里面", "裏面"),
    ],
)
def test_the_profile_follows_source_and_target(source: str, target: str, text: str, expected: str) -> None:
    assert to_variant(text, source, target) == expected


@pytest.mark.parametrize("target", ["", "keep", "zh-Hans"])
def test_text_stays_when_nothing_is_asked_or_it_is_in_that_variant(target: str) -> None:
    assert to_variant("看著皇后", "zh-Hans", target) == "看著皇后"


@pytest.mark.parametrize(
    ("source", "target", "text", "expected"),
    [
        ("zh-Hans", "zh-Hans", "引文：「這裡寫著繁體字樣」，后来", "引文：「这里写着繁体字样」，后来"),
        ("zh-Hant", "zh-Hant", "里長說：「这里没有后台」，皇后", "里長說：「這裏沒有後臺」，皇后"),
        ("zh-Hans", "zh-Hant", "他说，里長來了，后来走了", "他說，里長來了，後來走了"),
        ("zh-Hant", "zh-Hant", "國立国会圖書館的里長", "國立國會圖書館的里長"),
    ],
)
def test_a_clause_in_the_other_script_is_converted_and_one_in_the_target_is_left_alone(
    source: str, target: str, text: str, expected: str
) -> None:
    assert to_variant(text, source, target) == expected


def test_mixed_text_is_judged_line_by_line() -> None:
    assert to_variant("皇后說話\n这个后来", "mixed", "zh-Hant") == "皇后說話\n這個後來"


def test_an_unknown_pair_is_a_config_error_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'zh-Latn'.*zh-Hans, zh-Hant"):
        to_variant("字", "zh-Hans", "zh-Latn")
