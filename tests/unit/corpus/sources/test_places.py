"""Input at an address: the same documents as from this machine."""

import bz2
import functools
import gzip
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError
from megadec.corpus.document import read_documents
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import find_source
from megadec.corpus.sources.pieces import pieces, read_piece
from megadec.corpus.sources.places import versions_of
from megadec.corpus.sources.reading import ReadOptions
from tests.support import PROJECT

TEXT = "今天的新闻说，城市里的公园在春天开放了，许多市民带着孩子前去游玩，湖边的花开得正好，大家拍照留念。"
DUMP = PROJECT / "samples" / "zhwiki" / "sample-pages-articles.xml.bz2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"text": f"{TEXT}{number}"}, ensure_ascii=False) + "\n" for number in range(9))
    files = {
        "news/体育/1.txt": TEXT.encode(),
        "news/财经/2.txt": f"{TEXT}二".encode("gb18030"),
        "lines/a.jsonl": lines.encode(),
        "lines/b.jsonl.gz": gzip.compress(lines.encode()),
        "dump.xml.bz2": DUMP.read_bytes(),
        "dump.xml": bz2.decompress(DUMP.read_bytes()),
    }
    for name, content in files.items():
        path = tmp_path / "input" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    pq.write_table(pa.table({"text": [TEXT, f"{TEXT}三"]}), tmp_path / "input" / "t.parquet")
    return tmp_path / "input"


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/input/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield "memory://input"
    files.rm("/input", recursive=True)


def documents(source: str, place: Any) -> list[tuple[str, str, str]]:
    reader, options = find_source(source).read, ReadOptions(encoding="auto")
    report = CorpusReport()
    whole = list(reader(place, report, options))
    parts = [
        d for piece in pieces(reader, [place], options) for d in read_piece(piece, reader, CorpusReport(), options)
    ]
    assert whole == parts
    return [(document.id, document.label, document.text) for document in whole]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("thucnews", "news"),
        ("jsonl", "lines"),
        ("jsonl", "lines/b.jsonl.gz"),
        ("parquet", "t.parquet"),
        ("zhwiki", "dump.xml.bz2"),
        ("zhwiki", "dump.xml"),
    ],
)
def test_an_address_gives_the_documents_of_this_machine(folder: Path, memory: str, source: str, name: str) -> None:
    assert documents(source, f"{memory}/{name}") == documents(source, folder / name) != []


def test_prepare_reads_an_address_and_knows_when_its_files_change(memory: str, tmp_path: Path) -> None:
    out = tmp_path / "d.parquet"
    run_verb(["prepare", "--source", "jsonl", "--input", f"{memory}/lines", "--documents", str(out), "--workers", "1"])
    assert len(list(read_documents([out]))) == 9  # the second file has the same texts
    before = list(versions_of(f"{memory}/lines"))
    fsspec.filesystem("memory").pipe_file("/input/lines/a.jsonl", b"{}")
    assert list(versions_of(f"{memory}/lines")) != before


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("memory://nothing", InputError, "memory://nothing: no such file or folder"),
        ("unknown://x", ConfigError, "unknown://x: fsspec cannot read it here"),
    ],
)
def test_an_address_with_nothing_at_it_is_an_error(
    tmp_path: Path, address: str, error: type[Exception], message: str
) -> None:
    command = ["prepare", "--source", "jsonl", "--input", address, "--documents", str(tmp_path / "d.parquet")]
    with pytest.raises(error, match=message):
        run_verb(command)
    assert list(tmp_path.iterdir()) == []


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_a_file_is_read_from_a_server_that_knows_no_ranges(folder: Path) -> None:
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            assert documents("jsonl", f"{address}/lines/b.jsonl.gz") == documents("jsonl", folder / "lines/b.jsonl.gz")
            assert documents("zhwiki", f"{address}/dump.xml.bz2") == documents("zhwiki", folder / "dump.xml.bz2")
            with pytest.raises(InputError, match="no such file or folder"):
                documents("jsonl", f"{address}/nothing.jsonl")
        finally:
            server.shutdown()
            thread.join()
