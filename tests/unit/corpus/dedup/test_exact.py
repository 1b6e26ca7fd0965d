"""Exact duplicates, excluded texts and the held-out share."""

import random
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.dedup.exact import DIGEST_BYTES, digest_of, excluded_digests, is_held_out
from megadec.corpus.document import Document
from tests.support.documents import write_documents


def test_blanks_punctuation_width_and_case_do_not_make_another_text() -> None:
    assert digest_of("很快，很好！ ABC １２") == digest_of("很快很好\nabc12")
    assert digest_of("很快很好") != digest_of("很快很坏")
    assert len(digest_of("")) == DIGEST_BYTES


def test_texts_without_letters_are_not_all_one() -> None:
    assert digest_of("？？？") != digest_of("！！！")


def test_excluded_texts_are_those_of_lines_titles_and_documents(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("测试标题\t3\n另一个\n", encoding="utf-8")
    write_documents(tmp_path / "held.parquet", [Document("1", "s", "正文", title="题")])
    excluded = set(excluded_digests([tmp_path / "dev.txt", tmp_path / "held.parquet"]))
    assert {digest_of(text) for text in ("测试标题", "另一个", "题\n正文")} <= excluded
    assert digest_of("新的") not in excluded


def test_what_is_excluded_has_to_be_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder"):
        list(excluded_digests([tmp_path]))


def test_the_held_out_share_is_a_function_of_the_text_and_about_the_fraction() -> None:
    chance = random.Random(0)
    digests = [digest_of(f"第{chance.random()}篇") for _ in range(4000)]
    held = {digest for digest in digests if is_held_out(digest, 0.1)}
    assert 0.08 < len(held) / len(digests) < 0.12
    assert held <= {digest for digest in digests if is_held_out(digest, 0.2)}
    assert not any(is_held_out(digest, 0.0) for digest in digests)
