"""Exact duplicates, excluded texts and the held-out share."""

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import ConfigError
from megadec.corpus.dedup.exact import DIGEST_BYTES, digest_of, excluded_digests, is_held_out, letters_of
from megadec.corpus.document import Document
from tests.support.documents import write_documents


def test_blanks_punctuation_width_and_case_do_not_make_another_text() -> None:
    assert digest_of("很快，很好！ ABC １２") == digest_of("很快很好\nabc12")
    assert digest_of("很快很好") != digest_of("很快很坏")
    assert len(digest_of("")) == DIGEST_BYTES


def test_texts_without_letters_are_not_all_one() -> None:
    assert digest_of("？？？") != digest_of("！！！")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("这家店真的可以👍👍", "这家店真的可以👎👎"), ("涨幅1.5%不错", "涨幅15%不错"), ("C++语言好学", "C语言好学"),
        ("占比50%", "占比50"), ("气温-5度", "气温5度"), ("比分3:2", "比分32"), ("等级A+", "等级A-"),
        ("等级A", "等级A-"), ("3-5天到货", "35天到货"), ("3～5天到货", "35天到货"), ("评分★★★☆☆", "评分★★☆☆☆"),
        ("价格$5", "价格￥5"),
        ("C#入门", "C入门"), ("第①题", "第②题"), ("今天:)", "今天:("), ("x>1", "x<1"), ("1/2杯", "12杯"),
        ("好👍🏻", "好👍🏿"),
    ],
)  # fmt: skip
def test_short_texts_that_differ_in_a_symbol_are_two(one: str, other: str) -> None:
    assert digest_of(one) != digest_of(other)


def test_short_texts_that_differ_in_punctuation_are_one_and_keep_the_hash_of_their_letters() -> None:
    same = ["很好，吃！下次还来。", "很好吃～下次还来", "“很好吃”…下次还来~", "很好吃 下次-还来"]
    assert {digest_of(text) for text in same} == {digest_of("很好吃下次还来")}
    assert digest_of("比分3：2") == digest_of("比分3:2")


@given(st.text(max_size=60))
def test_letters_are_the_same_in_short_and_long_texts(text: str) -> None:
    for part in (text, text + "ΣΑΣ İΣ"):
        assert letters_of(part + "，" * 300 + "A") == letters_of(part + "，A")


def test_han_that_python_does_not_know_yet_and_new_pictures_make_another_text() -> None:
    assert digest_of("这个\U0003347f字") != digest_of("这个字")
    assert letters_of("字" * 200 + "\U0003347f_") == "字" * 200 + "\U0003347f"
    assert digest_of("好\U0001faf9") != digest_of("好\U0001fae9")


def test_in_long_texts_symbols_do_not_count() -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 100)))
    assert digest_of(f"{text}👍+-1.5%") == digest_of(f"{text}👎15")
    assert digest_of(f"{text[:90]}👍") != digest_of(f"{text[:90]}👎")


def test_excluded_texts_are_those_of_lines_titles_and_documents(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("测试标题\t3\n另一个\n", encoding="utf-8")
    write_documents(tmp_path / "held.parquet", [Document("1", "s", "正文", title="题")])
    found = excluded_digests([tmp_path / "dev.txt", tmp_path / "held.parquet"])
    dev, held = (set(digests) for digests in found.values())
    assert [Path(name).name for name in found] == ["dev.txt", "held.parquet"]
    assert {digest_of(text) for text in ("测试标题", "另一个")} <= dev
    assert held == {digest_of("题\n正文")}


def test_what_is_excluded_has_to_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder"):
        list(excluded_digests([tmp_path])[str(tmp_path)])


def test_the_held_out_share_is_a_function_of_the_text_and_about_the_fraction() -> None:
    chance = random.Random(0)
    digests = [digest_of(f"第{chance.random()}篇") for _ in range(4000)]
    held = {digest for digest in digests if is_held_out(digest, 0.1)}
    assert 0.08 < len(held) / len(digests) < 0.12
    assert held <= {digest for digest in digests if is_held_out(digest, 0.2)}
    assert not any(is_held_out(digest, 0.0) for digest in digests)
