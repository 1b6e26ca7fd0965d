"""A text is cut into words by jieba or rjieba, alike, with a user's own words."""

import pytest

from megadec.common.errors import InputError
from megadec.corpus.words.segment import SegmentOptions, is_word, read_user_dict

TEXTS = [
    "东5环海棠公社230-290平2居准现房98折优惠",
    "卡佩罗：告诉你德国脚生猛的原因 不希望英德战踢点球",
    "中華女子學院：本科層次僅1專業招男生",
    "今天天气真好，iPhone15 卖 5.5% 折扣！\n第二行𠮷野家",
    "",
]


@pytest.mark.parametrize("name", ["jieba", "rjieba"])
def test_the_words_of_a_text_are_the_text_when_joined(name):
    pytest.importorskip(name) if name == "rjieba" else None
    cut = SegmentOptions(name).open_segmenter().cut
    assert ["".join(cut(text)) for text in TEXTS] == TEXTS


def test_both_segmenters_cut_alike_with_and_without_a_users_words(tmp_path):
    pytest.importorskip("rjieba")
    path = tmp_path / "words.txt"
    path.write_text("准现房 100 n\n海棠公社\n英德战 3000\n", encoding="utf-8")
    for user_dict in (None, path):
        ours, other = (SegmentOptions(name, user_dict).open_segmenter().cut for name in ("jieba", "rjieba"))
        assert [ours(text) for text in TEXTS] == [other(text) for text in TEXTS]
    assert {"准现房", "海棠公社"} <= set(SegmentOptions("rjieba", path).open_segmenter().cut(TEXTS[0]))
    assert "海棠公社" not in SegmentOptions("rjieba").open_segmenter().cut(TEXTS[0])


def test_a_word_holds_a_letter_or_a_digit_of_any_script():
    assert all(map(is_word, ["中", "3", "iPhone", "𠮷", "\U000323af", "あ", "5.5%"]))
    assert not any(map(is_word, ["，", "-", " ", "\n", "…", "_", "😀", "《"]))


def test_auto_takes_rjieba_where_it_is_installed_and_says_which():
    pytest.importorskip("rjieba")
    assert SegmentOptions().segmenter_described()["name"] == "rjieba"


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "holds no word"), ("云计算\n凯特琳 3x n\n", r"line 2: '凯特琳 3x n' is not WORD \[COUNT\] \[TAG\]")],
)
def test_a_wrong_line_of_a_dictionary_is_named(tmp_path, text, words):
    (tmp_path / "words.txt").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        read_user_dict(tmp_path / "words.txt")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_user_dict(tmp_path / "none.txt")


def test_words_have_their_counts_and_may_hold_blanks(tmp_path):
    (tmp_path / "words.txt").write_text("云计算\n 凯特琳 100 nr\nNew York 5\nB2B n\n", encoding="utf-8")
    assert read_user_dict(tmp_path / "words.txt") == [("云计算", None), ("凯特琳", 100), ("New York", 5), ("B2B", None)]
