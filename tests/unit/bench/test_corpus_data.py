"""The check of real data finds what must not be in a text, and books that do not close."""

import json
from pathlib import Path

import pytest

from bench.corpus_data import _books, _found, main
from megadec.corpus.document import Document, DocumentsWriter
from megadec.corpus.report.counts import CorpusReport


def test_what_is_left_in_a_text_is_found(tmp_path: Path) -> None:
    texts = ("干净的文字", "半个-{标记", "{{模板|甲}}", "私用\ue40c字")
    with open(tmp_path / "d.parquet", "wb") as file, DocumentsWriter(file) as writer:
        for number, text in enumerate(texts):
            writer.write(Document(str(number), "s", text))
    found = {"private-use characters": 1, "half conversions": 1, "raw templates": 1}
    assert dict(_found("wiki", tmp_path / "d.parquet")) == found


def test_a_character_that_no_name_explains_is_found() -> None:
    report = CorpusReport()
    report.keep(Document("1", "s", "文字"), raw_characters=7)
    assert _books(report.to_dict())["unexplained"] == {"documents": 0, "characters": 5}


def test_an_input_goes_through_the_line_as_a_user_types_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    titles = tmp_path / "thucnews" / "titles" / "train.txt"
    titles.parent.mkdir(parents=True)
    titles.write_text("".join(f"第{number}条股市今日收盘消息\t1\n" for number in range(9)), "utf-8")
    main(["--data", str(tmp_path), "--only", "titles", "--workers", "1"])
    printed = json.loads(capsys.readouterr().out)
    assert printed["results"]["titles"]["kept"] == 9
    assert printed["bars"] == {"all_end_well": True, "books_close": True, "nothing_left_in_texts": True}
