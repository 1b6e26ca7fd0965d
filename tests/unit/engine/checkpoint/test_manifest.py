"""What is whole is found, what is damaged is named."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megadec.common.errors import CheckpointError
from megadec.common.files import sha256_of
from megadec.engine.checkpoint.manifest import (
    checkpoints_in,
    newest_whole,
    read_manifest,
    remove_old,
    remove_partial,
    replaced_name,
)
from megadec.engine.runs.common import CheckpointOptions


def make(folder: Path, step: int) -> Path:
    path = folder / f"step_{step:08d}"
    path.mkdir(parents=True)
    (path / "weights").write_bytes(b"weights of step %d" % step)
    files = {"weights": {"bytes": (path / "weights").stat().st_size, "sha256": sha256_of(path / "weights")}}
    manifest = {"format": "megadec-checkpoint", "version": 2, "step": step, "files": files}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_the_newest_whole_one_is_found_and_partial_ones_are_not_seen(tmp_path: Path) -> None:
    paths = [make(tmp_path, step) for step in (5, 100, 20)]
    (tmp_path / ".step_00000300.partial").mkdir()
    (tmp_path / "notes").mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step_00000005", "step_00000020", "step_00000100"]
    assert newest_whole(tmp_path) == (paths[1], read_manifest(paths[1]))
    assert newest_whole(tmp_path / "none yet") is None, "a run without checkpoints begins"


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "missing": ("weights", None),
    "cut": ("weights", lambda content: content[:-1]),
    "flipped": ("weights", lambda content: bytes([content[0] ^ 1]) + content[1:]),
    "no JSON": ("manifest.json", lambda _: b"{"),
    "another format": ("manifest.json", lambda content: content.replace(b"-checkpoint", b"-export")),
    "another version": ("manifest.json", lambda content: content.replace(b'"version": 2', b'"version": 1')),
}


def damage(path: Path, how: str) -> None:
    name, change = DAMAGES[how]
    if change is None:
        (path / name).unlink()
    else:
        (path / name).write_bytes(change((path / name).read_bytes()))


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_one_is_named_and_the_one_before_it_is_taken_and_no_run_begins_anew(tmp_path: Path, how: str) -> None:
    older, newer = make(tmp_path, 1), make(tmp_path, 2)
    damage(newer, how)
    with pytest.raises(CheckpointError, match="step_00000002"):
        read_manifest(newer)
    assert newest_whole(tmp_path) == (older, read_manifest(older))
    damage(older, "cut")
    with pytest.raises(CheckpointError, match=r"no checkpoint under .* is whole"):
        newest_whole(tmp_path)


def test_a_checkpoint_that_was_being_replaced_is_there_either_way(tmp_path: Path) -> None:
    for replacement_came in (False, True):
        old = make(tmp_path, 4)
        (old / "old").touch()
        os.replace(old, replaced_name(old))
        if replacement_came:
            make(tmp_path, 4)
        remove_partial(tmp_path)
        assert list(tmp_path.iterdir()) == [old]
        assert (old / "old").exists() != replacement_came
        shutil.rmtree(old)


def test_the_newest_the_best_and_every_so_many_steps_stay(tmp_path: Path) -> None:
    for step in range(2, 26, 2):
        make(tmp_path, step)
        remove_old(tmp_path, CheckpointOptions(interval_steps=2, keep_last=2, keep_every=8), best_step=6)
    assert [int(path.name[5:]) for path in checkpoints_in(tmp_path)] == [6, 8, 16, 22, 24]
    assert all(not path.name.startswith(".") for path in tmp_path.iterdir())
