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
from megadec.corpus.sources.encoding import characters, check_encoding, filled_lines, lines, whole_text
from megadec.corpus.sources.files import Member
from megadec.corpus.sources.reading import LineCheck, ReadOptions


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
        ("新聞說，公園在春天開放了，許多市民去玩", "big5hkscs", "auto"),
        ("今天的新闻\n公园", "utf-16-le", "auto"),
        ("今天的新闻\n公园", "utf-16-be", "auto"),
        ("今天的新闻\n公园", "utf-16-be", "utf-16"),
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


@pytest.mark.parametrize(("codec", "asked", "named"), [("big5hkscs", "gb18030", "big5"), ("utf-8", "gbk", "utf-8")])
def test_text_that_another_encoding_would_take_for_rare_characters_is_refused(
    codec: str, asked: str, named: str
) -> None:
    data = ("新聞說，公園在春天開放了，許多市民去玩" * 2).encode(codec)
    with pytest.raises(InputError, match=f"give --encoding {named} .or auto"):
        list(lines(member(data), asked, CorpusReport()))


def test_lines_in_another_encoding_are_dropped_unless_most_are() -> None:
    report = CorpusReport()
    check = LineCheck("甲.txt", "s", report, 0.01)
    data = "一\n二\n三\n四".encode().replace("二".encode(), "二".encode("gbk"))
    assert list(filled_lines(member(data), "utf-8", report, check)) == [(1, "一\n"), (3, "三\n"), (4, "四")]
    assert report.dropped == {"malformed_line": 1}
    with pytest.raises(InputError, match="byte 7: c8 fd is not utf-8"):
        list(
            lines(member("一\n二\n三".encode("gbk").replace("一".encode("gbk"), "一".encode())), "utf-8", report, check)
        )


def test_a_long_line_takes_linear_time_and_one_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 64)
    assert len(next(lines(member(b"a" * 200_000), "utf-8", CorpusReport()))) == 200_000
    monkeypatch.setattr(module, "LONGEST_LINE_CHARACTERS", 1000)
    with pytest.raises(InputError, match="a line of more than"):
        list(lines(member(b"a" * 2000), "utf-8", CorpusReport()))
