"""Bad input at the command line: one clear error that names the file, status 2, and nothing under a final name."""

from __future__ import annotations

import bz2
import shutil
from pathlib import Path

import pytest

from tests.support import PROJECT
from tests.support.processes import errors_of, run_script

DUMP = PROJECT / "samples" / "zhwiki" / "sample-pages-articles.xml.bz2"


def refused(script: str, *arguments: object) -> str:
    """Run a tool that must refuse, and give its message."""
    done = run_script(script, *arguments)
    assert done.returncode == 2, done.stderr
    [error] = errors_of(done.stderr)
    return error


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_truncated_dump_is_named_with_how_far_it_could_be_read(
    tmp_path: Path, kept: float, tiny_tokenizer_path: Path
) -> None:
    dump = tmp_path / "cut.xml.bz2"
    data = DUMP.read_bytes()
    dump.write_bytes(data[: int(len(data) * kept)])
    output = tmp_path / "made" / "shards"
    usual = ["--source", "zhwiki", "--input", dump]
    message = refused("tools/prepare.py", *usual, "--tokenizer", tiny_tokenizer_path, "--output", output)
    assert str(dump) in message
    assert names(tmp_path) in (["cut.xml.bz2"], ["cut.xml.bz2", "made"])


def test_a_file_that_only_says_it_is_a_dump_is_named(tmp_path: Path) -> None:
    dump = tmp_path / "not.xml.bz2"
    dump.write_bytes(bz2.compress("这不是 XML".encode()))
    message = refused("tools/prepare.py", "--source", "zhwiki", "--input", dump, "--documents", tmp_path / "documents")
    assert str(dump) in message


def test_a_damaged_set_is_named_before_anything_is_read_from_it(tmp_path: Path, tiny_shards: Path) -> None:
    broken = Path(shutil.copytree(tiny_shards, tmp_path / "broken"))
    tar = broken / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    assert str(tar) in refused("tools/show.py", "--data", broken)


def test_a_model_that_is_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    message = refused("tools/convert.py", "--input", folder, "--to", "hf", "--output", tmp_path / "out")
    assert str(folder) in message
    assert names(tmp_path) == ["empty"]
