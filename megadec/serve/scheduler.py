"""One thread computes, and all requests that it has taken on advance in turn.

In: jobs, each a series of short turns. Out: what the jobs give away themselves. A job waits until there is a place
among the running ones; it leaves when it is done, when its time is over, or when nobody wants it any more. Turns are
not interrupted, so the longest one (a part of a prompt, a token, a few texts) is what the others wait for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Protocol

from megadec.common.errors import REQUEST_WRONG, MegadecError
from megadec.common.log import logger
from megadec.serve.limits import Limits, RequestError

log = logger(__name__)

LONGEST_RETRY_SECONDS = 60


class Job(Protocol):
    """Work in turns. Both methods are called in the computing thread, or in the caller's before the first turn."""

    def turn(self) -> bool:
        """Do the next short piece; whether the job is done."""

    def fail(self, error: Exception) -> None:
        """The job ends here: its turn raised, its time is over, or the server stops."""


class Ticket:
    """A job's place in the scheduler."""

    def __init__(self, job: Job, seconds: float) -> None:
        self.job = job
        self.seconds = seconds
        self.deadline = time.monotonic() + seconds
        self.first_turn = 0.0
        self.cancelled = False


class Scheduler:
    """Runs jobs in a thread of its own, `limits.running` at a time; `limits.waiting` more wait in order."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._running: list[Ticket] = []
        self._ends_at: float | None = None
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
        return self._thread.is_alive() and self._ends_at is None

    def submit(self, job: Job, seconds: float) -> Ticket:
        """Take on a job that must end within `seconds`. Raises RequestError 503 when it cannot wait here."""
        ticket = Ticket(job, seconds)
        with self._changed:
            if not self.healthy:
                raise RequestError("the server is shutting down", status=503, code="shutting_down")
            free = self._limits.running - len(self._running)
            if len(self._waiting) >= self._limits.waiting + max(0, free):
                raise RequestError(
                    f"the server is busy: {len(self._running)} requests are computed and {len(self._waiting)} wait, "
                    f"which is all that it takes on; try again later",
                    status=503,
                    code="queue_full",
                    retry_after_seconds=self._retry_seconds(),
                )
            self._waiting.append(ticket)
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Nobody wants this job any more: a waiting one goes at once, a running one before its next turn."""
        ticket.cancelled = True
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)

    def drain(self, seconds: float) -> None:
        """Take on nothing more; what is not done in `seconds` is ended."""
        with self._changed:
            self._ends_at = min(time.monotonic() + seconds, self._ends_at or float("inf"))
            self._changed.notify()

    def close(self) -> None:
        """End everything now and wait for the thread."""
        self.drain(0.0)
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _retry_seconds(self) -> int:
        wait = self._mean_seconds * (1 + len(self._waiting) / self._limits.running)
        return max(1, min(LONGEST_RETRY_SECONDS, round(wait)))

    def _work(self) -> None:
        while self._admit():
            for ticket in list(self._running):
                if self._turn(ticket):
                    self._leave(ticket)

    def _admit(self) -> bool:
        """Fill free places, waiting for a job where there is none; False when the thread is to end."""
        with self._changed:
            while not self._running and not self._waiting:
                if self._closed:
                    return False
                self._changed.wait()
            while self._waiting and len(self._running) < self._limits.running:
                ticket = self._waiting.popleft()
                ticket.first_turn = time.monotonic()
                self._running.append(ticket)
            over = [ticket for ticket in self._waiting if self._over(ticket) is not None]
            for ticket in over:
                self._waiting.remove(ticket)
        for ticket in over:
            self._fail(ticket, self._over(ticket))
        return True

    def _over(self, ticket: Ticket) -> RequestError | None:
        """Why the job may not go on, or None."""
        now = time.monotonic()
        if self._ends_at is not None and now >= self._ends_at:
            return RequestError("the server is shutting down and ended this answer", status=503, code="shutting_down")
        if now >= ticket.deadline:
            return RequestError(f"no answer within {ticket.seconds:.3g} seconds, the limit", status=504, code="timeout")
        return None

    def _turn(self, ticket: Ticket) -> bool:
        """One turn of a job; whether it leaves."""
        if ticket.cancelled:
            return True
        over = self._over(ticket)
        if over is None:
            try:
                return ticket.job.turn()
            except Exception as error:
                # Whatever is wrong with one request, the others go on; the job tells its client.
                self._fail(ticket, error)
                return True
        self._fail(ticket, over)
        return True

    def _fail(self, ticket: Ticket, error: Exception | None) -> None:
        assert error is not None
        if not (isinstance(error, MegadecError) and error.exit_status == REQUEST_WRONG):
            log.error("a request failed while it was computed", exc_info=error)
        try:
            ticket.job.fail(error)
        except Exception as second:
            log.error("a failed request could not be told so", exc_info=second)

    def _leave(self, ticket: Ticket) -> None:
        with self._changed:
            self._running.remove(ticket)
        if not ticket.cancelled:
            self._mean_seconds += 0.2 * (time.monotonic() - ticket.first_turn - self._mean_seconds)
