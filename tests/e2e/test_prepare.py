"""tools/prepare.py as a user calls it: raw files to documents and shards, and what it says when it cannot."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from megadec.corpus.document import read_documents
from tests.support.processes import errors_of, run_script

# What a full disk is to the program, a limit on the size of a file is too: a write that is refused half-way.
ON_A_FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.argv = ["tools/prepare.py", *sys.argv[1:]]
runpy.run_path("tools/prepare.py", run_name="__main__")
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return run_script("tools/prepare.py", *arguments)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


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


def test_raw_news_become_documents_then_shards(tmp_path: Path, news: Path, tiny_tokenizer_path: Path) -> None:
    done = run("--source", "thucnews", "--input", news, "--documents", tmp_path / "documents", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert "60" in done.stdout
    assert "kept from thucnews" in done.stdout
    documents = list(read_documents([tmp_path / "documents" / "thucnews.parquet"]))
    assert {document.label for document in documents} == {"体育", "财经"}
    assert documents[0].title == "第1条新闻的标题"

    shards = tmp_path / "shards"
    arguments = ["--tokenizer", tiny_tokenizer_path, "--output", shards / "train"]
    held_out = ["--held-out-fraction", "0.2", "--held-out", shards / "held-out"]
    parquet = tmp_path / "documents" / "thucnews.parquet"
    done = run("--source", "parquet", "--input", parquet, *arguments, *held_out)
    assert done.returncode == 0, done.stderr
    train, held = (json.loads((shards / name / "index.json").read_text()) for name in ("train", "held-out"))
    assert train["documents"] + held["documents"] == 60
    assert list(train["sources"]) == ["thucnews"]


def test_a_gbk_file_read_as_utf_8_is_one_clear_error(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "体育"
    raw.mkdir(parents=True)
    text = (
        "决赛今晚开始，球队已经到达赛场。观众从下午就在门口排队，有人带着自己做的旗子，有人一路唱着歌，气氛非常热烈。"
    )
    (raw / "1.txt").write_bytes(text.encode("gbk"))
    arguments = ["--source", "thucnews", "--input", tmp_path / "raw", "--documents", tmp_path / "out"]
    done = run(*arguments)
    assert done.returncode == 2
    [line] = errors_of(done.stderr)
    assert "体育/1.txt: byte 0: be f6" in line
    assert "--encoding gb18030" in line
    assert files(tmp_path) == ["raw/体育/1.txt"]
    assert run(*arguments, "--encoding", "gb18030").returncode == 0


@pytest.mark.parametrize("with_shards", [False, True])
def test_a_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, news: Path, tiny_tokenizer_path: Path, with_shards: bool
) -> None:
    before = files(tmp_path)
    arguments: list[str | Path] = ["--documents", tmp_path / "out"]
    if with_shards:
        arguments = ["--tokenizer", tiny_tokenizer_path, "--output", tmp_path / "shards"]
    script = tmp_path.with_suffix(".py")
    script.write_text(ON_A_FULL_DISK)
    done = run_script(script, "--source", "thucnews", "--input", news, "--workers", "1", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot write" in errors_of(done.stderr)[0]
    assert "Exception ignored" not in done.stderr
    assert files(tmp_path) == before


def test_an_unknown_option_names_the_nearest(tmp_path: Path) -> None:
    done = run("--source", "text", "--imput", tmp_path)
    assert done.returncode == 2
    assert "--imput" in done.stderr
    assert "did you mean 'input'" in done.stderr
