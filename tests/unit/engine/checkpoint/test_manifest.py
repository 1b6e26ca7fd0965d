"""What is whole is found, what is damaged is named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.errors import CheckpointError, ConfigError
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


def test_a_run_without_checkpoints_begins(tmp_path: Path) -> None:
    assert newest_whole(tmp_path / "none yet") is None


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
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_taken(tmp_path: Path, how: str) -> None:
    older, newer = make(tmp_path, 1), make(tmp_path, 2)
    damage(newer, how)
    with pytest.raises(CheckpointError, match="step_00000002"):
        read_manifest(newer)
    assert newest_whole(tmp_path) == (older, read_manifest(older))


def test_a_run_whose_checkpoints_are_all_damaged_does_not_begin_anew(tmp_path: Path) -> None:
    damage(make(tmp_path, 1), "cut")
    with pytest.raises(CheckpointError, match=r"no checkpoint under .* is whole"):
        newest_whole(tmp_path)


def test_unfinished_checkpoints_are_removed_and_whole_ones_stay(tmp_path: Path) -> None:
    kept = make(tmp_path, 1)
    (tmp_path / ".step_00000002.17f3.partial" / "state").mkdir(parents=True)
    remove_partial(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


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


def test_what_is_to_stay_must_be_saved_first() -> None:
    CheckpointOptions(interval_steps=50, keep_every=200)
    for interval_steps, keep_every in ((50, 75), (0, 100)):
        with pytest.raises(ConfigError, match=f"keep_every={keep_every} is not a multiple"):
            CheckpointOptions(interval_steps=interval_steps, keep_every=keep_every)


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_options_are_refused_exactly_when_they_cannot_be_met(interval_steps: int, keep_last: int) -> None:
    if interval_steps >= 0 and keep_last >= 1:
        CheckpointOptions(interval_steps=interval_steps, keep_last=keep_last)
    else:
        with pytest.raises(ConfigError, match=r"checkpoint\."):
            CheckpointOptions(interval_steps=interval_steps, keep_last=keep_last)
