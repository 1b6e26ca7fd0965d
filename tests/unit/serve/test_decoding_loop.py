"""Who follows a continuation is told of all that comes, however slowly they read."""

import asyncio
import contextlib
import time

from megadec.decoding.continuation import Continuation
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import batched
from megadec.serve.decoding_loop import DecodingLoop
from megadec.serve.limits import Limits
from megadec.serve.scheduler import Scheduler
from tests.support.served import Recited


def test_what_is_done_while_the_reader_is_busy_is_read_once_more() -> None:
    async def follow() -> list[int]:
        scheduler = Scheduler(Limits())
        with contextlib.closing(scheduler):
            loop = DecodingLoop(batched(Recited(50, [7, 8])), scheduler, 4)
            continuation, seen = Continuation([1], Sampling(2, 0.0)), list[int]()
            async for _ in loop.follow(scheduler.admit(), [continuation]):
                seen.append(len(continuation.ids))
                time.sleep(0.2)  # the event loop is held up, and the computing thread goes on
            return seen

    assert asyncio.run(follow())[-1] == 2
