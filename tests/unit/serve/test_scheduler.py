"""Requests advance in turn, wait in order, and leave when they are done, too late, or not wanted any more."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from megadec.common.errors import CheckpointError, ConfigError, InputError
from megadec.serve.limits import Limits, RequestError
from megadec.serve.scheduler import Scheduler, Slot

PATIENCE_SECONDS = 60.0


class Line:
    """A scheduler, and what its requests note: their name at each turn. No turn ends while `gate` is closed."""

    def __init__(self, **limits: float) -> None:
        self.scheduler = Scheduler(Limits(**limits))
        self.notes: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def start(self, name: str, turns: float = float("inf")) -> asyncio.Task[None]:
        """A request of so many turns."""
        return asyncio.create_task(self._take_turns(self.scheduler.admit(), name, turns))

    async def _take_turns(self, place: Slot, name: str, turns: float) -> None:
        def note() -> None:
            assert self.gate.wait(PATIENCE_SECONDS)
            self.notes.append(name)

        try:
            while turns > 0:
                await self.scheduler.turn(place, note)
                turns -= 1
        finally:
            self.scheduler.leave(place)

    async def until(self, running: int, waiting: int) -> None:
        while (self.scheduler.running, self.scheduler.waiting) != (running, waiting):
            await asyncio.sleep(0.001)


def run(test: Callable[[Line], Coroutine[Any, Any, None]], **limits: float) -> list[str]:
    """The notes of a line in which `test` happened."""

    async def within() -> list[str]:
        line = Line(**limits)
        with contextlib.closing(line.scheduler):
            await asyncio.wait_for(test(line), PATIENCE_SECONDS)
        return line.notes

    return asyncio.run(within())


@pytest.mark.parametrize(("running", "turns"), [(3, "abcabc"), (1, "aabbcc")])
def test_running_requests_take_turns_in_order_and_others_wait_until_a_place_is_free(running: int, turns: str) -> None:
    async def test(line: Line) -> None:
        line.gate.clear()
        tasks = [line.start(name, 2) for name in "abc"]
        await line.until(running, 3 - running)
        line.gate.set()
        await asyncio.gather(*tasks)

    assert run(test, running=running) == list(turns)


@pytest.mark.parametrize("waiting", [0, 1])
def test_a_full_queue_refuses_with_the_time_to_come_back(waiting: int) -> None:
    """With no queue at all, what can run at once is still taken on."""

    async def test(line: Line) -> None:
        tasks = [line.start("a", 1) for _ in range(2 + waiting)]
        with pytest.raises(RequestError, match=f"0 requests are computed and {2 + waiting} wait") as refused:
            line.start("b")
        assert refused.value.status == 503
        assert 1 <= (refused.value.retry_after_seconds or 0) <= 60
        await asyncio.gather(*tasks)
        await line.start("c", 1)

    assert run(test, running=2, waiting=waiting)[-1] == "c"


def test_a_cancelled_request_frees_its_place_and_is_never_computed_again() -> None:
    async def test(line: Line) -> None:
        endless, other, dropped = line.start("a"), line.start("b", 1), line.start("c", 1)
        await line.until(1, 2)
        dropped.cancel()
        endless.cancel()
        await other
        await line.until(0, 0)

    notes = run(test, running=1)
    assert notes[-1] == "b"
    assert "c" not in notes


def test_a_request_ends_at_its_deadline_running_or_waiting() -> None:
    async def test(line: Line) -> None:
        for ended in await asyncio.gather(line.start("a"), line.start("b", 1), return_exceptions=True):
            assert (ended.status, ended.code) == (504, "timeout")

    run(test, running=1, request_seconds=0.2)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (InputError("texts[3] is too long"), 400, "texts[3] is too long"),
        (CheckpointError("/srv/secret is cut"), 500, "the server failed"),
        (ZeroDivisionError("secret"), 500, "the server failed"),
    ],
)
def test_a_client_is_told_what_it_did_and_not_what_broke_and_others_go_on(
    error: Exception, status: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    async def test(line: Line) -> None:
        other = line.start("b", 50)
        with pytest.raises(RequestError, match=words.replace("[", r"\[")) as seen:
            await line.scheduler.turn(line.scheduler.admit(), fail)
        assert seen.value.status == status
        assert "secret" not in str(seen.value)
        await other

    run(test)


def test_a_shutdown_lets_requests_end_within_the_grace_time_and_takes_no_more() -> None:
    async def test(line: Line) -> None:
        line.gate.clear()
        short, endless, waiting = line.start("a", 3), line.start("b"), line.start("c", 1)
        await line.until(2, 1)
        line.scheduler.drain(0.3)
        with pytest.raises(RequestError, match="shutting down"):
            line.start("d")
        assert not line.scheduler.healthy
        line.gate.set()
        await short
        await waiting
        with pytest.raises(RequestError, match="ended this answer"):
            await endless

    run(test, running=2)


def test_a_shutdown_ends_what_still_waits() -> None:
    async def test(line: Line) -> None:
        tasks = [line.start("a"), line.start("b")]
        await line.until(1, 1)
        line.scheduler.drain(0.1)
        assert [error.code for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["shutting_down"] * 2

    run(test, running=1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("computing")]


@pytest.mark.parametrize(
    ("name", "value"), [("running", 0), ("waiting", -1), ("body_bytes", 0), ("request_seconds", float("nan"))]
)
def test_limits_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"limits.{name}="):
        Limits(**{name: value})
