"""Whatever the stage and the number of ranks, what was loaded is what is saved again."""

from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.errors import CheckpointError
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import MOMENTS, StateFiles, Sums, add_sums, header_of, rank_file, write_state
from tests.support.state_files import write_state_files
from tests.support.zero_engines import fake_engine

SIZES = {"bias": (5,), "frozen": (11,), "matrix": (7, 5), "one": (1,)}
TRAINED = [name for name in SIZES if name != "frozen"]


def write(checkpoint: Path, sizes: Any = SIZES, moments_of: Any = TRAINED, step: int | None = 7) -> Sums:
    weights = {name: torch.randn(size) for name, size in sizes.items()}
    moments = {name: {part: torch.randn(sizes[name]) for part in MOMENTS} for name in moments_of}
    return write_state_files(checkpoint, weights, moments, step)


def state_of(stage: int, rank: int = 0, ranks: int = 1) -> ZeroState:
    return ZeroState(fake_engine(stage, rank, ranks, SIZES, "frozen"), stage, rank, ranks)


@pytest.mark.parametrize("ranks", [1, 2, 3, 12])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_state_that_was_loaded_is_saved_again_bit_for_bit(tmp_path: Path, stage: int, ranks: int) -> None:
    sums, total = write(tmp_path / "saved"), Sums()
    files = StateFiles(tmp_path / "saved")
    for rank in range(ranks):
        state = state_of(stage, rank, ranks)
        state.check(files)
        state.load(files)
        assert (state.optimizer_step, state.shapes, state.frozen) == (7, SIZES, {"frozen"})
        header = header_of(state.slices(), state.shapes, state.optimizer_step)
        write_state(tmp_path / "again" / rank_file(rank), header, state.tensors(), lambda: None)
        add_sums(total, state.bit_sums())
    assert total == sums
    again = StateFiles(tmp_path / "again")
    for name, size in SIZES.items():
        assert again.parts(name) == files.parts(name)
        for part in files.parts(name):
            both = [one.read_range(name, part, 0, torch.Size(size).numel()) for one in (files, again)]
            assert torch.equal(*both)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_files_from_before_the_first_update_take_the_moments_away(tmp_path: Path, stage: int) -> None:
    write(tmp_path / "later")
    write(tmp_path / "first", moments_of=(), step=None)
    state = state_of(stage)
    for name, step in (("later", 7), ("first", None)):
        state.load(StateFiles(tmp_path / name))
        assert state.optimizer_step == step
    assert {shard.part for shard in state.slices()} == {"weight"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": {**SIZES, "bias": (6,)}}, r"no 'bias' of shape \[5\]: it holds another model"),
        ({"sizes": {"matrix": (7, 5)}, "moments_of": ["matrix"]}, "no 'bias' of shape"),
        ({"moments_of": ["bias", "one"]}, "no exp_avg of 'matrix'"),
    ],
)
def test_files_that_lack_what_is_trained_here_are_refused(tmp_path: Path, changes: Any, words: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        state_of(2).check(StateFiles(tmp_path))


def test_what_is_on_a_disk_is_read_for_use_and_written_back_only_when_it_was_filled(tmp_path: Path) -> None:
    sums = write(tmp_path)
    engine = fake_engine(3, 0, 1, SIZES, "frozen", on_disk=True)
    state, calls = ZeroState(engine, 3, 0, 1), engine.optimizer.calls
    assert state.on_disk
    state.load(StateFiles(tmp_path))
    assert calls == ["prologue", "swap in", "reassign", "swap out", "epilogue"]
    calls.clear()
    assert [shard.name for shard in state.slices() if shard.part == "weight"] == [*TRAINED, "frozen"]
    assert calls == [], "the slices are known without reading"
    assert state.bit_sums() == sums
    tensors = state.tensors()
    next(tensors)
    tensors.close()
    assert calls == ["swap in", "release"] * 2, "buffers are given back also when not all is taken"
