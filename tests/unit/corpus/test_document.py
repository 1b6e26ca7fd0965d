"""Documents and their Parquet file."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.common.errors import InputError
from megadec.corpus import document as module
from megadec.corpus.document import Document, full_text, read_documents
from tests.support.documents import write_documents

FULL = Document("甲/1", "news", "正文\n第二行 🙂", "标题", "体育", "https://example.org", "CC0-1.0", "zh-Hans")


def test_documents_come_back_from_parquet_as_they_were_file_after_file(tmp_path: Path) -> None:
    documents = [FULL, Document("2", "news", ""), Document("3", "wiki", "a" * 100_000)]
    paths = [tmp_path / "b.parquet", tmp_path / "a.parquet"]
    write_documents(paths[0], documents[:2])
    write_documents(paths[1], documents[2:])
    assert list(read_documents(paths)) == documents


def test_a_long_stream_is_cut_into_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_DOCUMENTS", 3)
    monkeypatch.setattr(module, "ROW_GROUP_CHARACTERS", 10)
    write_documents(tmp_path / "d.parquet", [Document(str(n), "s", "字" * (12 if n == 1 else 1)) for n in range(6)])
    metadata = pq.read_metadata(tmp_path / "d.parquet")
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [2, 3, 1]


def test_a_table_of_another_kind_is_refused_by_its_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"review": ["好"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="columns review: not a file of documents"):
        list(read_documents([tmp_path / "t.parquet"]))


def test_a_missing_or_cut_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        list(read_documents([tmp_path / "none.parquet"]))
    write_documents(tmp_path / "d.parquet", [FULL])
    whole = (tmp_path / "d.parquet").read_bytes()
    (tmp_path / "d.parquet").write_bytes(whole[:-20])
    with pytest.raises(InputError, match="not a whole Parquet file"):
        list(read_documents([tmp_path / "d.parquet"]))


def test_the_title_stands_before_the_text_once() -> None:
    assert full_text(Document("1", "s", "正文", "标题")) == "标题\n正文"
    assert full_text(Document("1", "s", "标题是什么", "标题")) == "标题是什么"
    assert full_text(Document("1", "s", "正文")) == "正文"
    assert full_text(Document("1", "s", "", "标题")) == "标题"
