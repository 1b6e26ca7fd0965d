"""Steps the batch decoder while there is something to decode, and wakes the requests that something came for.

A step is one piece of work for the scheduler's thread, so classification and probes get their turns between two steps.
Sequences come and go between steps: the event loop collects them, and the thread takes them on.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from megadec.decoding.batch import BatchDecoder
from megadec.decoding.continuation import Continuation
from megadec.decoding.session import BatchedModel
from megadec.serve.scheduler import Scheduler, Slot


class DecodingLoop:
    """Methods are for the event loop."""

    def __init__(self, model: BatchedModel, scheduler: Scheduler, running: int) -> None:
        self.decoder = BatchDecoder(model, running)
        self._scheduler = scheduler
        self._came: dict[Continuation, asyncio.Event] = {}
        self._new: list[Continuation] = []
        self._gone: list[Continuation] = []
        self._task: asyncio.Task[None] | None = None

    async def follow(self, slot: Slot, continuations: Sequence[Continuation]) -> AsyncGenerator[None]:
        """Yields each time that something came to one of them, at last when all are done.

        Raises RequestError when the request's time is over, the server ends, or the work fails.
        """
        await self._scheduler.begin(slot)
        came = asyncio.Event()
        self._came |= dict.fromkeys(continuations, came)
        self._new += continuations
        self._wake()
        try:
            are_done = False
            while not are_done:
                await self._scheduler.in_time(slot, came.wait())
                came.clear()
                # Before the yield: what is done only while the caller reads is to be read once more.
                are_done = all(one.done or one not in self._came for one in continuations)
                for one in continuations:
                    if one.error is not None:
                        await self._scheduler.in_time(slot, _raise(one.error))
                yield
        finally:
            for one in continuations:
                self.leave(one)

    def leave(self, continuation: Continuation) -> None:
        """Nothing more is wanted of this one; once is enough, more do no harm."""
        if self._came.pop(continuation, None) is not None:
            self._gone.append(continuation)
            self._wake()

    def _wake(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while self._came or self._gone:
            new, gone, self._new, self._gone = self._new, self._gone, [], []
            for one in await self._scheduler.compute(lambda new=new, gone=gone: self._step(new, gone)):  # type: ignore[misc]
                if one in self._came:
                    self._came[one].set()

    def _step(self, new: list[Continuation], gone: list[Continuation]) -> list[Continuation]:
        """In the computing thread."""
        for one in new:
            self.decoder.add(one)
        for one in gone:
            self.decoder.remove(one)
        try:
            return self.decoder.step()
        except Exception as error:  # a defect: whoever waits is told, and the next request is computed
            return self.decoder.fail(error)


async def _raise(error: Exception) -> None:
    raise error
