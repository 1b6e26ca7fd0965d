"""Who is late, and what a process alone reports."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from megadec.engine.health.watchdog import Heartbeat, Watchdog, late


def beat(rank: int, phases: int, collectives: int) -> Heartbeat:
    return Heartbeat(rank, 7, "reduce", phases, collectives, 1.0)


def test_late_is_who_has_entered_fewer_phases_or_in_the_same_fewer_collectives() -> None:
    beats = {0: beat(0, 12, 40), 1: beat(1, 11, 40), 2: beat(2, 12, 39), 3: beat(3, 12, 40)}
    assert [one.rank for one in late(beats)] == [1, 2]
    assert late({0: beat(0, 12, 40), 1: beat(1, 12, 40)}) == []


def wait_here(seconds: float) -> None:
    time.sleep(seconds)


def test_a_step_that_takes_too_long_is_reported_with_its_phase_and_the_line_where_it_is(tmp_path: Path) -> None:
    with Watchdog(0.2, tmp_path, rank=0, world_size=1) as watch:
        watch.set_phase("data", 3)
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("stalls/step_*.txt")) and time.monotonic() < deadline:
            wait_here(0.3)
    report = (tmp_path / "stalls" / "step_00000003_rank_0000.txt").read_text()
    assert report.startswith("rank 0 (step 3, data, for ")
    assert "in wait_here" in report


def test_what_gets_on_is_not_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The watch's clock goes as far as the loop does: a busy machine that holds up the loop holds up both.
    clock = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(
        "megadec.engine.health.watchdog.time", SimpleNamespace(monotonic=lambda: clock.seconds, time=time.time)
    )
    with Watchdog(0.1, tmp_path, rank=0, world_size=1) as watch:
        for step in range(20):
            watch.set_phase("data", step)
            clock.seconds += 0.02
            time.sleep(0.02)
    assert not list(tmp_path.iterdir())


def test_zero_seconds_watch_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    with Watchdog(0.0, tmp_path, rank=0, world_size=1):
        assert threading.active_count() == threads
    assert not list(tmp_path.iterdir())
