"""One thread computes, and all requests that were taken on advance together or in turn.

A request waits for a slot among the running ones, and keeps it until it leaves. Pieces of work are not interrupted, so
the longest one (a step of all that is generated, a few texts) is what the others wait for.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from megadec.common.errors import REQUEST_WRONG, MegadecError
from megadec.common.log import logger
from megadec.serve.limits import Limits, RequestError

T = TypeVar("T")
log = logger(__name__)

LONGEST_RETRY_SECONDS = 60


@dataclass(eq=False)
class Slot:
    """A request in the queue. Times are those of the event loop."""

    deadline: float
    started: float | None = None  # None while it waits
    timeout: asyncio.Timeout | None = None


class Scheduler:
    """`limits.running` requests are computed; `limits.waiting` more wait in order. Methods are for the event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, "computing")
        self._free = asyncio.Semaphore(limits.running)
        self._slots: set[Slot] = set()
        self._ends_at = float("inf")
        self._mean_seconds = 1.0
        self._computing = 0
        self._heard_at = self._succeeded_at = float("-inf")

    @property
    def running(self) -> int:
        """Requests that are computed."""
        return sum(slot.started is not None for slot in self._slots)

    @property
    def waiting(self) -> int:
        """Requests that wait for others to leave."""
        return len(self._slots) - self.running

    @property
    def healthy(self) -> bool:
        """Whether requests are taken on: no shutdown has begun."""
        return self._ends_at == float("inf")

    @property
    def silent_seconds(self) -> float:
        """For how long the thread has been at one piece of work; 0 where it has none."""
        return asyncio.get_running_loop().time() - self._heard_at if self._computing else 0.0

    @property
    def idle_seconds(self) -> float:
        """For how long nothing was computed with success; 0 while something is being computed."""
        return 0.0 if self._computing else asyncio.get_running_loop().time() - self._succeeded_at

    async def compute(self, work: Callable[[], T]) -> T:
        """What a short piece of work gives, behind all that the thread was given before."""
        loop = asyncio.get_running_loop()
        if not self._computing:
            self._heard_at = loop.time()
        self._computing += 1

        def computed(future: Future[T]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._computed, future)

        future = self._thread.submit(work)
        # Of the thread's own future: that of the loop is cancelled while the thread still computes.
        future.add_done_callback(computed)
        return await asyncio.wrap_future(future)

    def _computed(self, future: Future[Any]) -> None:
        self._computing -= 1
        self._heard_at = asyncio.get_running_loop().time()
        if not future.cancelled() and future.exception() is None:
            self._succeeded_at = self._heard_at

    def admit(self) -> Slot:
        """Take on a request, which must `leave` in the end. Raises RequestError 503 when it cannot wait here."""
        if not self.healthy:
            raise RequestError("the server is shutting down", 503, "shutting_down")
        if len(self._slots) >= self._limits.running + self._limits.waiting:
            retry = self._mean_seconds * (1 + self.waiting / self._limits.running)
            message = (
                f"the server is busy: {self.running} requests are computed and {self.waiting} wait, "
                f"which is all that it takes on; try again later"
            )
            retry_seconds = max(1, min(LONGEST_RETRY_SECONDS, round(retry)))
            raise RequestError(message, 503, "queue_full", retry_after_seconds=retry_seconds)
        slot = Slot(asyncio.get_running_loop().time() + self._limits.request_seconds)
        self._slots.add(slot)
        return slot

    def leave(self, slot: Slot) -> None:
        """Nothing more is to be computed for this request."""
        self._slots.remove(slot)
        if slot.started is not None:
            self._mean_seconds += 0.2 * (asyncio.get_running_loop().time() - slot.started - self._mean_seconds)
            self._free.release()

    async def turn(self, slot: Slot, work: Callable[[], T]) -> T:
        """What a short piece of work gives; it is computed when it is the request's turn.

        Raises RequestError when the request's time is over, the server ends, or the work fails: whatever is wrong with
        one request, the others go on. A client is told what is wrong with its request, and of a defect no details.
        """

        await self.begin(slot)
        return await self.in_time(slot, self.compute(work))

    async def begin(self, slot: Slot) -> None:
        """Wait for a place among the running requests. Raises RequestError as `turn` does."""
        if slot.started is None:
            await self.in_time(slot, self._free.acquire())
            slot.started = asyncio.get_running_loop().time()

    async def in_time(self, slot: Slot, work: Awaitable[T]) -> T:
        """The result of `work` within the request's time. Raises RequestError as `turn` does."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(min(slot.deadline, self._ends_at)) as slot.timeout:
                return await work
        except RequestError:
            raise
        except TimeoutError as error:
            if loop.time() >= self._ends_at:
                raise RequestError("the server is shutting down and ended this answer", 503, "shutting_down") from error
            message = f"no answer within {self._limits.request_seconds:.3g} seconds, the limit"
            raise RequestError(message, 504, "timeout") from error
        except Exception as error:
            if isinstance(error, MegadecError) and error.exit_status == REQUEST_WRONG:
                raise RequestError(str(error)) from error
            log.exception("a request failed while it was computed")
            raise RequestError("the server failed while it computed this request", 500, "internal_error") from error

    def drain(self, seconds: float) -> None:
        """Take on nothing more; what is not done in `seconds` is ended."""
        self._ends_at = min(asyncio.get_running_loop().time() + seconds, self._ends_at)
        for slot in self._slots:
            with contextlib.suppress(RuntimeError):  # this turn is over
                if slot.timeout is not None:
                    slot.timeout.reschedule(min(slot.deadline, self._ends_at))

    def close(self) -> None:
        """End the thread with the turn that it is at."""
        self._thread.shutdown(cancel_futures=True)
