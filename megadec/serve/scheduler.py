"""One thread computes, and all jobs that it has taken on advance in turn.

A job waits for a place among the running ones; it leaves when it is done, when its time is over, or when nobody wants
it any more. Turns are not interrupted, so the longest one (a part of a prompt, a token, a few texts) is what the others
wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from typing import Any

from megadec.common.errors import REQUEST_WRONG, MegadecError
from megadec.common.log import logger
from megadec.serve.limits import Limits, RequestError

log = logger(__name__)

LONGEST_RETRY_SECONDS = 60


class Events:
    """From the computing thread to the event loop that made this, in order."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, event: Any) -> None:
        """Called in any thread; an exception is raised by `get`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def get(self) -> Any:
        """The next event."""
        event = await self._queue.get()
        if isinstance(event, Exception):
            raise event
        return event


class Job:
    """Work in turns that must end within `seconds`; `turn` and `fail` are called in the computing thread."""

    def __init__(self, events: Events, seconds: float) -> None:
        self.events = events
        self.seconds = seconds
        self.asked = self.started = time.monotonic()
        self.cancelled = False

    def turn(self) -> bool:
        """Do the next short piece; whether the job is done."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """The job ends here. A client is told what is wrong with its request, and of a defect no details."""
        if not isinstance(error, RequestError):
            if isinstance(error, MegadecError) and error.exit_status == REQUEST_WRONG:
                error = RequestError(str(error), code="invalid_value")
            else:
                log.error("a request failed while it was computed", exc_info=error)
                message = "the server failed while it computed this request"
                error = RequestError(message, status=500, code="internal_error")
        self.events.put(error)


class Scheduler:
    """Runs jobs in a thread of its own, `limits.running` at a time; `limits.waiting` more wait in order."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._ends_at = float("inf")
        self._closed = False
        self._mean_seconds = 1.0
        self._thread = threading.Thread(target=self._work, name="computing", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait for a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Jobs that have a place."""
        return len(self._running)

    @property
    def healthy(self) -> bool:
        """Whether jobs are taken on: the thread lives and no shutdown has begun."""
        return self._thread.is_alive() and self._ends_at == float("inf")

    def submit(self, job: Job) -> None:
        """Take on a job. Raises RequestError 503 when it cannot wait here."""
        with self._changed:
            if not self.healthy:
                raise RequestError("the server is shutting down", status=503, code="shutting_down")
            if self.waiting + self.running >= self._limits.waiting + max(self._limits.running, self.running):
                retry = self._mean_seconds * (1 + self.waiting / self._limits.running)
                raise RequestError(
                    f"the server is busy: {self.running} requests are computed and {self.waiting} wait, "
                    f"which is all that it takes on; try again later",
                    status=503,
                    code="queue_full",
                    retry_after_seconds=max(1, min(LONGEST_RETRY_SECONDS, round(retry))),
                )
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Nobody wants this job any more: a waiting one goes at once, a running one before its next turn."""
        job.cancelled = True
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)

    def drain(self, seconds: float) -> None:
        """Take on nothing more; what is not done in `seconds` is ended."""
        with self._changed:
            self._ends_at = min(time.monotonic() + seconds, self._ends_at)
            self._changed.notify()

    def close(self) -> None:
        """End everything now and wait for the thread."""
        self.drain(0.0)
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._admit():
            for job in list(self._running):
                if job.cancelled or self._is_over(job) or self._is_done(job):
                    with self._changed:
                        self._running.remove(job)
                    if not job.cancelled:
                        self._mean_seconds += 0.2 * (time.monotonic() - job.started - self._mean_seconds)

    def _admit(self) -> bool:
        """Fill free places, waiting for a job where there is none; False when the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._running or self._waiting or self._closed)
            while self._waiting and len(self._running) < self._limits.running:
                job = self._waiting.popleft()
                job.started = time.monotonic()
                self._running.append(job)
            for job in [job for job in self._waiting if self._is_over(job)]:
                self._waiting.remove(job)
        return bool(self._running) or not self._closed

    def _is_over(self, job: Job) -> bool:
        """Whether the job may not go on; it is told why."""
        now = time.monotonic()
        if now >= self._ends_at:
            message = "the server is shutting down and ended this answer"
            job.fail(RequestError(message, status=503, code="shutting_down"))
        elif now >= job.asked + job.seconds:
            message = f"no answer within {job.seconds:.3g} seconds, the limit"
            job.fail(RequestError(message, status=504, code="timeout"))
        else:
            return False
        return True

    def _is_done(self, job: Job) -> bool:
        """One turn. Whatever is wrong with one request, the others go on."""
        try:
            return job.turn()
        except Exception as error:
            job.fail(error)
            return True
