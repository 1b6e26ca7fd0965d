"""Pieces of every kind of input: their documents and counts are those of the undivided reading."""

import gzip
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import cuts, find_source, parquet
from megadec.corpus.sources import pieces as module
from megadec.corpus.sources.pieces import Piece, pieces, read_piece
from megadec.corpus.sources.reading import ReadOptions, check_files
from tests.support.documents import write_documents

ROWS = [
    {"id": str(n), "text": f"第{n}篇，" + "正文" * (n % 7), "label": "体育" if n % 3 else "财经"} for n in range(200)
]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GROUP_BYTES", 300), ("RANGE_BYTES", 1000), ("CARRIED_CHARACTERS", 200)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(cuts, "RANGE_BYTES", 1000)
    monkeypatch.setattr(cuts, "BLOCK_BYTES", 333)
    monkeypatch.setattr(parquet, "PIECE_BYTES", 1)


def json_lines(path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    lines.insert(120, "{broken")
    (path / "a.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")


def json_list(path: Path) -> None:
    (path / "a.json").write_text(json.dumps(ROWS, ensure_ascii=False, indent=1), encoding="utf-8")


def csv_lines(path: Path) -> None:
    text = "".join(f"{row['label']},{row['text']}\r\n" for row in ROWS)
    (path / "a.csv").write_text("label,review\r\n" + text, encoding="utf-8", newline="")
    (path / "b.csv").write_text("label,review\n" + text.replace("第", '"第').replace("\r", '"'), encoding="utf-8")


def text_lines(path: Path) -> None:
    blank = random.Random(0)
    lines = "".join(row["text"] + "\n" * blank.choice((1, 1, 2)) + blank.choice(("", "　\n")) for row in ROWS)
    (path / "a.txt").write_text(lines, encoding="gb18030")
    (path / "b.txt").write_text(lines.replace("\n", "\r"), encoding="gb18030")


def news(path: Path) -> None:
    for row in ROWS:
        file = path / row["label"] / f"{row['id']}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(row["text"], encoding="utf-8")
    (path / "picture.png").write_text("x")
    (path / "titles.txt").write_text("".join(f"{row['text']}\t{row['label']}\n" for row in ROWS), encoding="utf-8")


def packed_news(path: Path) -> None:
    news(path)
    shutil.make_archive(str(path / "all"), "gztar", path)
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.suffix != ".gz":
            entry.unlink()
    (path / "all.tar.gz").rename(path.with_name("made.tar.gz"))


def packed_lines(path: Path) -> None:
    json_lines(path)
    (path / "b.jsonl.gz").write_bytes(gzip.compress((path / "a.jsonl").read_bytes()))


def table(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path / "a.parquet", row_group_size=17)


def documents(path: Path) -> None:
    write_documents(path / "d.parquet", [Document(row["id"], "wiki", row["text"]) for row in ROWS])


@pytest.mark.parametrize(
    ("source", "make", "least", "options"),
    [
        ("jsonl", json_lines, 8, {}),
        ("jsonl", json_list, 8, {}),
        ("jsonl", packed_lines, 16, {}),
        ("comments", csv_lines, 8, {}),
        ("text", text_lines, 8, {"lines_per_document": 3, "encoding": "gb18030"}),
        ("thucnews", news, 20, {"encoding": "auto"}),
        ("thucnews", packed_news, 8, {}),
        ("parquet", table, 10, {}),
        ("documents", documents, 1, {}),
    ],
)
def test_pieces_give_the_documents_and_counts_of_the_undivided_reading(
    tmp_path: Path, source: str, make: Callable[[Path], None], least: int, options: dict[str, Any]
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    make(folder)
    place = folder if any(folder.iterdir()) else tmp_path / "made.tar.gz"
    reader, asked = find_source(source).read, ReadOptions(**options)
    whole, parts = CorpusReport(), CorpusReport()
    expected = list(reader(place, whole, asked))
    cut = list(pieces(reader, [place], asked))
    assert len({piece.name for piece in cut}) == len(cut) >= least
    found = []
    for piece in reversed(cut):  # in any order, and in another process
        report = CorpusReport()
        found.append(list(read_piece(pickle.loads(pickle.dumps(piece)), reader, report, asked)))
        parts.merge(report)
    check_files(parts, asked)
    assert [document for documents in reversed(found) for document in documents] == expected
    assert (parts.dropped, parts.notes) == (whole.dropped, whole.notes)
    assert [piece.name for piece in pieces(reader, [place], asked)] == [piece.name for piece in cut]


def test_an_input_named_twice_is_read_twice_under_two_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("正文", encoding="utf-8")
    found: list[Piece] = list(pieces(find_source("text").read, [tmp_path, tmp_path], ReadOptions()))
    assert len({piece.name for piece in found}) == 2
