"""tools/prepare.py on a dump that is cut and on a full disk: one clear error, and nothing under a final name."""

import random
import resource
from pathlib import Path

import pytest

from megadec.cli import run_verb
from megadec.common.errors import StorageError
from tests.support import PROJECT
from tests.support.processes import errors_of, run_script

DUMP = PROJECT / "samples" / "zhwiki" / "sample-pages-articles.xml.bz2"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_truncated_dump_is_named_on_one_line_without_a_traceback(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    dump = tmp_path / "cut.xml.bz2"
    data = DUMP.read_bytes()
    dump.write_bytes(data[: int(len(data) * 0.99)])
    shards = ["--tokenizer", tiny_tokenizer_path, "--output", tmp_path / "made" / "shards"]
    done = run_script("tools/prepare.py", "--source", "zhwiki", "--input", dump, *shards)
    assert done.returncode == 2, done.stderr
    [error] = errors_of(done.stderr)
    assert str(dump) in error
    assert files(tmp_path) == ["cut.xml.bz2"]


@pytest.fixture
def news(tmp_path: Path) -> Path:
    """A corpus in THUCNews form whose text cannot be compressed to nothing."""
    chance = random.Random(0)
    for number in range(60):
        folder = tmp_path / "raw" / ("体育" if number % 2 else "财经")
        folder.mkdir(parents=True, exist_ok=True)
        body = "".join(chr(chance.randrange(0x4E00, 0x9000)) for _ in range(2000))
        text = f"第{number}条新闻的标题\n　　{body}。\n　　又一段。\n"
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return tmp_path / "raw"


@pytest.mark.parametrize("with_shards", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, news: Path, tiny_tokenizer_path: Path, with_shards: bool
) -> None:
    before = files(tmp_path)
    arguments = ["--documents", str(tmp_path / "out")]
    if with_shards:
        arguments = ["--tokenizer", str(tiny_tokenizer_path), "--output", str(tmp_path / "shards")]
    # What a full disk is to the program, a limit on the size of a file is too: a write that is refused half-way.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, limits[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            run_verb(["prepare", "--source", "thucnews", "--input", str(news), "--workers", "1", *arguments])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == before
