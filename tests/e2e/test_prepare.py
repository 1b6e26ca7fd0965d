"""tools/prepare.py on a disk that is full."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.processes import errors_of, run_script

# What a full disk is to the program, a limit on the size of a file is too: a write that is refused half-way.
ON_A_FULL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (100 * 1024, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
sys.argv = ["tools/prepare.py", *sys.argv[1:]]
runpy.run_path("tools/prepare.py", run_name="__main__")
"""


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
