"""Characters, widths, blanks and newlines."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.corpus.clean.text import clean_line, clean_text

# Every kind of character there is, with those that the rules are about drawn often.
TRICKY = st.text(
    st.one_of(
        st.sampled_from(list(" \t\n\r\v\u3000\u200b\ufeff\xa0\u2028Ａ９％．，。a1汉·\u0301ｶﾞ\ue40c-")), st.characters()
    )
)

HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x2A6DF), (0x2A700, 0x2EE5D), (0x30000, 0x3347F))


@given(TRICKY)
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@given(TRICKY)
def test_clean_text_has_only_visible_characters_single_blanks_and_newlines(text: str) -> None:
    cleaned = clean_text(text)
    assert not [c for c in cleaned if unicodedata.category(c) in ("Cc", "Co", "Cs") and c not in "\n\t"]
    assert not [c for c in cleaned if unicodedata.category(c) == "Cf" and c != "\u200d" and c < "\U000e0000"]
    assert "\n\n\n" not in cleaned
    assert "\u3000" not in cleaned
    for line in cleaned.split("\n"):
        assert line == line.rstrip(" \t")
        assert "  " not in line.lstrip(" \t")


@given(st.text(st.one_of(st.characters(codec="utf-8", min_codepoint=a, max_codepoint=z) for a, z in HAN)))
def test_chinese_characters_stay_as_they_are_however_old_the_tables_of_python(text: str) -> None:
    """Up to extension J of Unicode 17; Python 3.11 knows those up to G."""
    assert clean_text(text) == text


@pytest.mark.parametrize(
    "picture", ["👨\u200d👩\u200d👧", "❤\ufe0f\u200d🔥", "👍🏽", "🏴\U000e0067\U000e0062\U000e007f", "\U0001fae8"]
)
def test_joined_pictures_stay_whole(picture: str) -> None:
    assert clean_text(f"好{picture}看") == f"好{picture}看"


@pytest.mark.parametrize("stray", ["\u200d", "\U000e0067", "\ufffe", "\U0003ffff", "\ufdd1", "\u200c"])
def test_what_joins_nothing_goes(stray: str) -> None:
    assert clean_text(f"好{stray}看") == "好看"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("ＶＩＰ车厢２０１２年９５％", "VIP车厢2012年95%"),
        ("你好，世界！真的？（是）：对；", "你好，世界！真的？（是）：对；"),
        ("１．５倍和Ａ．Ｂ", "1.5倍和A.B"),
        ("证毕．因此", "证毕．因此"),
        ("｢好｣｡", "「好」。"),
        ("e\u0301", "é"),
        ("零\u200b宽\ufeff度\u202e", "零宽度"),
        ("私\ue40c用", "私用"),
        ("坏\ud800字", "坏字"),
        ("　　本报讯　记者  某某", "本报讯 记者 某某"),
        ("一\r\n二\r三\u2028四\x0b五", "一\n二\n三\n四\n五"),
        ("一\n\n\n\n二", "一\n\n二"),
        ("\n\n一\n  \n", "一"),
        ("行尾  \n\t", "行尾"),
        ("    return 1\n\tx  = 2", "    return 1\n\tx = 2"),
        ("    缩进的汉字", "缩进的汉字"),
        ("不\xa0断", "不 断"),
    ],
)
def test_characters_have_one_width_newlines_stay_and_blanks_become_single(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


def test_a_title_is_one_line() -> None:
    assert clean_line(" 甲\n　乙\t丙 ") == "甲 乙 丙"
