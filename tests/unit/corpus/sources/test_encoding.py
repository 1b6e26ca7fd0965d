"""Strict decoding, what auto finds, and lines."""

from io import BytesIO
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import ConfigError, InputError
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import encoding as module
from megadec.corpus.sources import files
from megadec.corpus.sources.encoding import characters, check_encoding, lines, whole_text
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.reading import ReadOptions


def member(data: bytes) -> Member:
    return Member("folder/甲.txt", PurePosixPath("甲.txt"), BytesIO(data))


@pytest.mark.parametrize(
    ("text", "codec", "asked"),
    [
        ("汉字 ABC", "utf-8", "utf-8"),
        ("汉字 ABC", "utf-8-sig", "utf-8"),
        ("汉字 ABC", "gbk", "gb2312"),
        ("𠀀䶮 汉", "gb18030", "gb18030"),
        ("漢字", "big5hkscs", "big5"),
        ("汉字", "utf-16", "utf-16"),
        ("汉字", "gb18030", "auto"),
        ("汉字", "utf-8", "auto"),
        ("汉字", "utf-16", "auto"),
        ("", "utf-8", "auto"),
    ],
)
def test_text_comes_back_from_the_encoding_that_was_said(text: str, codec: str, asked: str) -> None:
    assert "".join(characters(member(text.encode(codec)), asked, CorpusReport())) == text


def test_auto_counts_what_it_found_by_file() -> None:
    report = CorpusReport()
    for codec in ("gb18030", "utf-8", "gb18030"):
        list(lines(member("汉字".encode(codec)), "auto", report))
    assert dict(report.notes) == {"files read as gb18030": 2, "files read as utf-8": 1}


def test_gbk_read_as_utf_8_names_file_offset_bytes_and_the_way_out() -> None:
    data = b"ascii " + "汉字".encode("gbk")
    found = r"甲\.txt: byte 6: ba ba d7 d6 is not utf-8 .*GB18030 or GBK.*--encoding gb18030"
    with pytest.raises(InputError, match=found):
        "".join(characters(member(data), "utf-8", CorpusReport()))


def test_the_offset_counts_from_the_start_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 7)
    data = ("汉" * 10).encode() + b"\xff"
    with pytest.raises(InputError, match="byte 30: ff is not utf-8"):
        list(characters(member(data), "utf-8", CorpusReport()))


def test_a_character_cut_at_the_end_is_an_error() -> None:
    with pytest.raises(InputError, match="byte 3: e6 b1 is not utf-8"):
        list(characters(member("汉汉".encode()[:5]), "utf-8", CorpusReport()))


def test_an_unknown_encoding_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gb18030'"):
        check_encoding("gb18003")


@given(st.text(st.sampled_from(list("汉a\n\r ")), max_size=40), st.integers(1, 9))
def test_lines_are_those_of_the_text_whatever_the_block(text: str, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block)
        found = list(lines(member(text.encode()), "utf-8", CorpusReport()))
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(found).rstrip("\n") == plain.rstrip("\n")
    assert all(line.count("\n") <= 1 and line.find("\n") in (-1, len(line) - 1) for line in found)


def test_only_newlines_end_a_line() -> None:
    assert list(lines(member("一\u2028二\x0c三\n四".encode()), "utf-8", CorpusReport())) == ["一\u2028二\x0c三\n", "四"]


def test_a_file_too_large_for_one_document_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_DOCUMENT_CHARACTERS", 99)
    with pytest.raises(InputError, match="--lines_per_document"):
        whole_text(member(b"a" * 100), ReadOptions(), CorpusReport())
