"""Laws of whole files and folders."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, StorageError
from megadec.common.files import read_json, remove_temporary, sha256_of, whole_file, whole_folder, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_has_its_name_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.bin"
    with pytest.raises(RuntimeError, match="stop"), whole_file(target) as stream:
        stream.write(b"half")
        assert not target.exists()
        raise RuntimeError("stop")
    assert names(target.parent) == []
    with whole_file(target) as stream:
        stream.write(b"whole")
    assert names(target.parent) == ["a.bin"]
    assert sha256_of(target) == hashlib.sha256(b"whole").hexdigest()


def test_a_folder_has_its_name_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with pytest.raises(RuntimeError, match="stop"), whole_folder(target) as folder:
        (folder / "x").write_text("half")
        raise RuntimeError("stop")
    assert names(tmp_path) == []
    with whole_folder(target) as folder:
        (folder / "x").write_text("whole")
    with pytest.raises(ConfigError, match="exists already"), whole_folder(target):
        pass
    with whole_folder(target, replace=True) as folder:
        (folder / "y").write_text("new")
    assert names(target) == ["y"]
    assert names(tmp_path) == ["set"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from megadec.common.files import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as stream:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / ".hidden").touch()
    (tmp_path / "a.partial-file").touch()
    (tmp_path / "checkpoints").mkdir()
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "metrics.jsonl")], check=False)
    assert done.returncode == -9
    assert len(names(tmp_path)) == 4
    remove_temporary(tmp_path)
    assert names(tmp_path) == [".hidden", "a.partial-file", "checkpoints"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a parent of it is a file"), whole_file(tmp_path / "file" / "x"):
        pass


def test_json_is_read_back_and_broken_json_names_the_place(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"字": 1})
    assert read_json(tmp_path / "a.json") == {"字": 1}
    (tmp_path / "b.json").write_text('{"a": 1,\n oops}')
    with pytest.raises(ConfigError, match="line 2"):
        read_json(tmp_path / "b.json")
    with pytest.raises(ConfigError, match="does not exist"):
        read_json(tmp_path / "c.json")
