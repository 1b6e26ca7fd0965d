"""Fetching from a server that breaks off, changes the file, knows no ranges, or gives another file than it says."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError, MegadecError
from megadec.corpus.download import DownloadOptions, download

DATA = bytes(range(256)) * 400
OTHER = DATA[::-1] + b"longer"


class Server(ThreadingHTTPServer):
    """Serves `files`. `plan` says for each request what goes wrong: -status, bytes after which it breaks off, or a new
    content of the file. `ranges`, `tags`: whether it knows them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {"/a/file.bin": DATA}
        self.plan: list[Any] = []
        self.ranges = True
        self.tags = True
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.headers.get("Range", "all"))
        step = self.server.plan.pop(0) if self.server.plan else None
        if isinstance(step, bytes):
            self.server.files[self.path] = step
        content = self.server.files.get(self.path)
        if content is None or (isinstance(step, int) and step < 0):
            self.send_error(-step if isinstance(step, int) else 404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if self.server.ranges and self.headers.get("Range") and self.headers.get("If-Range") == tag:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if start >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.server.tags:
            self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: step if isinstance(step, int) else None])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def fetch(server: Server, folder: Path, **options: Any) -> bytes:
    wanted = {"dump": f"{server.address}/a/file.bin", "output": folder, "pause_seconds": 0.0, **options}
    return download(DownloadOptions(**wanted)).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_fetch_that_breaks_off_goes_on_where_it_ended(server: Server, tmp_path: Path) -> None:
    server.plan = [30_000, 50_000, -503]
    assert fetch(server, tmp_path, sha256=hashlib.sha256(DATA).hexdigest()) == DATA
    assert server.asked == ["all", "bytes=30000-", "bytes=80000-", "bytes=80000-"]
    assert names(tmp_path) == ["file.bin"]


def test_another_call_goes_on_with_what_the_first_one_left(server: Server, tmp_path: Path) -> None:
    server.plan = [30_000, 0, 0]
    with pytest.raises(MegadecError, match=r"30,000 of 102,400 bytes.*30,000 bytes are kept, call again") as caught:
        fetch(server, tmp_path, attempts=2)
    assert caught.value.exit_status == 1
    assert names(tmp_path) == [".file.bin.download", ".file.bin.download.json"]
    server.plan = []
    assert fetch(server, tmp_path) == DATA
    assert server.asked[-1] == "bytes=30000-"


@pytest.mark.parametrize(("ranges", "tags"), [(False, True), (True, False)])
def test_from_a_server_without_ranges_or_tags_it_is_fetched_anew(
    server: Server, tmp_path: Path, ranges: bool, tags: bool
) -> None:
    server.ranges, server.tags, server.plan = ranges, tags, [30_000]
    assert fetch(server, tmp_path) == DATA


def test_a_file_that_changes_between_is_fetched_anew_and_never_mixed(server: Server, tmp_path: Path) -> None:
    server.plan = [30_000, OTHER]
    assert fetch(server, tmp_path) == OTHER


def test_all_that_was_missing_was_the_name(server: Server, tmp_path: Path) -> None:
    server.plan = [30_000, 0]
    with pytest.raises(MegadecError):
        fetch(server, tmp_path, attempts=2)
    (tmp_path / ".file.bin.download").write_bytes(DATA)
    assert fetch(server, tmp_path) == DATA


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    found = hashlib.md5(DATA).hexdigest()
    with pytest.raises(InputError, match=f"its md5 is {found}, it must be {'0' * 32}"):
        fetch(server, tmp_path, md5="0" * 32)
    assert names(tmp_path) == []


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(OTHER)
    with pytest.raises(ConfigError, match="exists already"):
        fetch(server, tmp_path, md5=hashlib.md5(DATA).hexdigest())
    assert fetch(server, tmp_path, md5=hashlib.md5(OTHER).hexdigest()) == OTHER
    assert server.asked == []
    assert fetch(server, tmp_path, overwrite=True) == DATA


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dump": "ftp://e.org/a"}, ConfigError, "only http and https"),
        ({"dump": "ZhWiki"}, ConfigError, "neither a wiki's name"),
        ({"sha1": "xyz"}, ConfigError, "sha1='xyz' is not 40 hexadecimal digits"),
        ({"dump": "zhwiki", "mirror": "acum"}, ConfigError, "did you mean 'accum'"),
        ({"dump": "zhwiki", "part": "article"}, ConfigError, "did you mean 'articles'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_asked(
    server: Server, tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        fetch(server, tmp_path, **options)
    assert server.asked == []


def test_an_address_without_a_file_is_an_error_at_once(server: Server, tmp_path: Path) -> None:
    server.files = {}
    with pytest.raises(InputError, match="the server says 404"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


def test_a_dump_is_found_on_a_mirror_and_compared_with_the_servers_list(server: Server, tmp_path: Path) -> None:
    name = "zhwiki-{}-pages-articles-multistream.xml.bz2"
    sums = f"{hashlib.sha1(DATA).hexdigest()}  {name.format('20260401')}\n{'0' * 40}  zhwiki-20260401-stub.xml.gz\n"
    server.files = {
        f"/zhwiki/latest/{name.format('latest')}": DATA,
        "/zhwiki/latest/zhwiki-latest-sha1sums.txt": sums.encode(),
    }
    command = [
        "download",
        "--dump",
        "zhwiki",
        "--mirror",
        server.address,
        "--output",
        str(tmp_path),
        "--pause_seconds",
        "0",
    ]
    run_verb(command)
    assert (tmp_path / name.format("latest")).read_bytes() == DATA
    server.files[f"/zhwiki/latest/{name.format('latest')}"] = OTHER
    with pytest.raises(InputError, match="its sha1 is"):
        run_verb([*command, "--overwrite", "true"])
    assert (tmp_path / name.format("latest")).read_bytes() == DATA
