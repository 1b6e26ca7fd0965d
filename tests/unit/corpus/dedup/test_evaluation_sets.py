"""Texts of evaluation sets in the forms in which they are published."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.common.errors import InputError
from megadec.corpus.dedup.evaluation_sets import evaluation_texts

CMMLU = ",Question,A,B,C,D,Answer\n0,最低层次是,自我实现,社会,安全,生理,D\n1,不可扩张的是,家电,汽车,食盐,化妆品,C\n"
C3 = {
    "id": [0],
    "context": [["男：你好？", "女：很好。"]],
    "question": ["他好吗"],
    "choice": [["好", "不好"]],
    "answer": ["好"],
}
SQUAD = {
    "data": [
        {
            "title": "题",
            "paragraphs": [{"context": "一段", "qas": [{"question": "问", "id": "Q1", "answers": [{"text": "答"}]}]}],
        }
    ]
}


def texts(path: Path) -> list[str]:
    return [text.strip() for text in evaluation_texts(path)]


def test_tables_give_their_questions_and_not_their_choices(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CMMLU, encoding="utf-8-sig")
    assert texts(tmp_path / "a.csv") == ["最低层次是", "不可扩张的是"]


def test_an_archive_is_one_set(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cmmlu.tar.xz", "w:xz") as tar:
        for name in ("dev/a.csv", "test/b.csv", "README.md"):
            info = tarfile.TarInfo(name)
            info.size = len(CMMLU.encode())
            tar.addfile(info, io.BytesIO(CMMLU.encode()))
    assert len(texts(tmp_path / "cmmlu.tar.xz")) == 4


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_arrow_and_parquet_give_what_is_read_and_asked(tmp_path: Path, kind: str) -> None:
    table = pa.table(C3)
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.arrow")
    if kind == "parquet":
        pq.write_table(table, path)
    else:
        make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
        with make(path, table.schema) as writer:
            writer.write_table(table)
    assert texts(path) == ["男：你好？", "女：很好。", "他好吗"]


def test_json_is_read_at_any_depth_and_by_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(SQUAD, ensure_ascii=False, indent=1), encoding="utf-8")
    assert texts(tmp_path / "a.json")[:3] == ["题", "一段", "问"]
    (tmp_path / "b.jsonl").write_text('{"sentence": "句", "label": "1"}\n{"sentence1": "甲", "sentence2": "乙"}\n')
    assert texts(tmp_path / "b.jsonl") == ["句", "甲", "乙"]


def test_a_line_is_a_text_with_and_without_its_label(tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("标题一\t3\n\n标题二\n", encoding="gb18030")
    assert texts(tmp_path / "dev.txt") == ["标题一\t3", "标题一", "标题二"]


def test_unknown_columns_give_all_texts_but_answers(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"词语": "守株待兔", "answer": "B", "n": 3}\n', encoding="utf-8")
    assert texts(tmp_path / "a.jsonl") == ["守株待兔"]
    (tmp_path / "a.tsv").write_text("没有表头\t1\n第二行\t2\n", encoding="utf-8")
    assert texts(tmp_path / "a.tsv") == ["没有表头", "1", "第二行", "2"]


@pytest.mark.parametrize(("name", "data"), [("a.json", b"{"), ("a.arrow", b"no"), ("a.parquet", b"no")])
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        texts(tmp_path / name)
