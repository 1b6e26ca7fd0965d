"""A save in the background holds what was there when it began."""

from pathlib import Path
from typing import Any

import pytest

from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.metrics.reports import Saved
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.zero.state_files import StateFiles

BYTES = 4 * (5 + 11 + 35)


def publish(partial: Path, final: Path, *_: Any) -> None:
    partial.rename(final)


@pytest.mark.parametrize(
    ("options", "background"),
    [
        ({}, True),
        ({"asynchronous": False}, False),
        ({"snapshot_bytes": BYTES - 1}, False),
        ({"snapshot_bytes": BYTES}, True),
    ],
)
def test_training_waits_only_where_it_is_asked_to_or_a_copy_has_no_room(
    tmp_path: Path, make_engine: Any, options: dict[str, Any], background: bool
) -> None:
    engine, path = make_engine(), tmp_path / "step"
    engine.update(1.0)
    with AsyncCheckpointer(engine.zero_state(), engine.ranks, CheckpointOptions(**options)) as saver:
        saved = saver.start(Saved(path, 3), {"rng": b"x"}, publish, began=0.0)
        assert (saved is None) == background
        engine.update(2.0)
        saved = saved or saver.wait()
        assert saver.poll() is None
    assert saved is not None
    assert (saved.path, saved.step, saved.bytes, saved.asynchronous) == (path, 3, BYTES, background)
    assert saved.seconds >= saved.stall_seconds > 0.0
    assert float(StateFiles(path).read("matrix")[0, 0]) == 1.0
    assert (path / "rng").read_bytes() == b"x"
