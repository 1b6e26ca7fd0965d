"""Jobs advance in turn, wait in order, and leave when they are done, too late, or not wanted any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from megadec.common.errors import ConfigError
from megadec.serve.limits import Limits, RequestError
from megadec.serve.scheduler import Job, Scheduler
from tests.support.served import Kept

PATIENCE_SECONDS = 60.0


class Turns(Job):
    """A job of so many turns that writes its name down at each; `gate` must be open for a turn."""

    def __init__(
        self,
        name: str,
        turns: int,
        notes: list[str],
        gate: threading.Event | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(Kept(), seconds)
        self.name = name
        self.left = turns
        self.notes = notes
        self.gate = gate
        self.ended = threading.Event()

    def turn(self) -> bool:
        if self.gate is not None:
            assert self.gate.wait(PATIENCE_SECONDS)
        self.notes.append(self.name)
        self.left -= 1
        if not self.left:
            self.ended.set()
        return self.left == 0

    def fail(self, error: Exception) -> None:
        super().fail(error)
        self.ended.set()


class Broken(Turns):
    def turn(self) -> bool:
        raise ZeroDivisionError


@pytest.fixture
def make() -> Iterator[Callable[..., Scheduler]]:
    made: list[Scheduler] = []

    def start(**limits: float) -> Scheduler:
        made.append(Scheduler(Limits(**limits)))
        return made[-1]

    yield start
    for scheduler in made:
        scheduler.close()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_running_jobs_take_turns(make: Callable[..., Scheduler]) -> None:
    scheduler, notes, gate = make(), [], threading.Event()
    jobs = [Turns(name, 3, notes, gate) for name in "abc"]
    for job in jobs:
        scheduler.submit(job)
    gate.set()
    assert all(job.ended.wait(PATIENCE_SECONDS) for job in jobs)
    assert sorted(notes) == sorted("abc" * 3)
    assert notes[-6:] == list("abcabc") or notes[-3:] == list("abc")


def test_a_job_waits_until_a_place_is_free(make: Callable[..., Scheduler]) -> None:
    scheduler, notes, gate = make(running=1), [], threading.Event()
    jobs = [Turns(name, 2, notes, gate) for name in "abc"]
    for job in jobs:
        scheduler.submit(job)
    until(lambda: (scheduler.running, scheduler.waiting) == (1, 2))
    gate.set()
    assert jobs[2].ended.wait(PATIENCE_SECONDS)
    assert notes == list("aabbcc")


def test_a_full_queue_refuses_with_the_time_to_come_back(make: Callable[..., Scheduler]) -> None:
    scheduler, gate = make(running=1, waiting=1), threading.Event()
    jobs = [Turns(name, 1, [], gate) for name in "abc"]
    scheduler.submit(jobs[0])
    until(lambda: scheduler.running == 1)
    scheduler.submit(jobs[1])
    with pytest.raises(RequestError, match="1 requests are computed and 1 wait") as refused:
        scheduler.submit(jobs[2])
    assert refused.value.status == 503
    assert 1 <= (refused.value.retry_after_seconds or 0) <= 60
    gate.set()
    assert jobs[1].ended.wait(PATIENCE_SECONDS)


def test_places_count_beside_the_queue(make: Callable[..., Scheduler]) -> None:
    """With no queue at all, what can run at once is still taken on."""
    scheduler, gate = make(running=2, waiting=0), threading.Event()
    for name in "ab":
        scheduler.submit(Turns(name, 1, [], gate))
    with pytest.raises(RequestError, match="busy"):
        scheduler.submit(Turns("c", 1, [], gate))
    gate.set()
    until(lambda: scheduler.running == 0)


def test_a_cancelled_job_frees_its_place_and_is_never_turned_again(make: Callable[..., Scheduler]) -> None:
    scheduler, notes = make(running=1), []
    endless, other, dropped = Turns("a", 10**9, notes), Turns("b", 1, notes), Turns("c", 1, notes)
    for job in (endless, other, dropped):
        scheduler.submit(job)
    scheduler.cancel(dropped)
    scheduler.cancel(endless)
    assert other.ended.wait(PATIENCE_SECONDS)
    until(lambda: (scheduler.running, scheduler.waiting) == (0, 0))
    assert notes[-1] == "b"
    assert "c" not in notes


def test_a_job_ends_at_its_deadline_running_or_waiting(make: Callable[..., Scheduler]) -> None:
    scheduler = make(running=1)
    jobs = [Turns("a", 10**9, [], seconds=0.3), Turns("b", 1, [], seconds=0.1)]
    for job in jobs:
        scheduler.submit(job)
    for job in jobs:
        assert job.ended.wait(PATIENCE_SECONDS)
        assert [(error.status, error.code) for error in job.events] == [(504, "timeout")]


def test_a_job_that_breaks_does_not_break_the_others(
    make: Callable[..., Scheduler], caplog: pytest.LogCaptureFixture
) -> None:
    scheduler = make()
    broken, whole = Broken("a", 1, []), Turns("b", 50, [])
    for job in (broken, whole):
        scheduler.submit(job)
    assert broken.ended.wait(PATIENCE_SECONDS)
    assert whole.ended.wait(PATIENCE_SECONDS)
    assert [error.status for error in broken.events] == [500]
    assert whole.events == []
    assert scheduler.healthy


def test_a_shutdown_lets_jobs_end_within_the_grace_time_and_takes_no_more(make: Callable[..., Scheduler]) -> None:
    scheduler, gate = make(), threading.Event()
    short, endless = Turns("a", 3, [], gate), Turns("b", 10**9, [])
    for job in (short, endless):
        scheduler.submit(job)
    scheduler.drain(0.5)
    gate.set()
    assert short.ended.wait(PATIENCE_SECONDS)
    assert endless.ended.wait(PATIENCE_SECONDS)
    assert short.events == []
    assert [error.code for error in endless.events] == ["shutting_down"]
    with pytest.raises(RequestError, match="shutting down"):
        scheduler.submit(Turns("c", 1, []))
    assert not scheduler.healthy


def test_closing_ends_the_thread(make: Callable[..., Scheduler]) -> None:
    scheduler = make()
    job = Turns("a", 10**9, [])
    scheduler.submit(job)
    scheduler.close()
    assert job.ended.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "computing"]


@pytest.mark.parametrize(
    "values", [{"running": 0}, {"waiting": -1}, {"body_bytes": 0}, {"request_seconds": float("nan")}]
)
def test_limits_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"limits.{next(iter(values))}="):
        Limits(**values)
