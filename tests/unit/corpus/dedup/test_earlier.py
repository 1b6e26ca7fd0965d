"""Documents of earlier runs as seen before."""

from pathlib import Path

import pytest

from megadec.common.errors import InputError
from megadec.corpus.dedup.earlier import seen_before
from megadec.corpus.dedup.fingerprint import fingerprint
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document
from tests.support.documents import write_documents


def test_files_and_folders_of_documents_are_read_in_order(tmp_path: Path) -> None:
    documents = [Document(str(number), "s", "字" * number + "文" * 200) for number in range(6)]
    write_documents(tmp_path / "a.parquet", documents[:2])
    write_documents(tmp_path / "b" / "1.parquet", documents[2:3])
    write_documents(tmp_path / "b" / "2.parquet", documents[3:])
    options = DedupOptions(against=(tmp_path / "a.parquet", tmp_path / "b"))
    assert list(seen_before(options, 1)) == [fingerprint(document, options) for document in documents]


def test_what_is_no_file_of_documents_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.parquet"):
        list(seen_before(DedupOptions(against=(tmp_path / "a.parquet",)), 1))
    (tmp_path / "shards").mkdir()
    with pytest.raises(InputError, match="no file to read: it is empty"):
        list(seen_before(DedupOptions(against=(tmp_path / "shards",)), 1))
