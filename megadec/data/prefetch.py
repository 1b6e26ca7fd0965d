"""Makes batches ahead, in threads, and copies them to the device before they are asked for.

Threads, not processes: numpy releases the lock while it copies, and carrying a batch over takes longer than making it.
One thread is enough for shards on a local disk; remote shards want more.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Self

import torch

from megadec.data.batch import Batch

JOIN_SECONDS = 10.0
_Ready = tuple[Sequence[Batch], "torch.cuda.Event | None"]


class Prefetcher(Iterator[Sequence[Batch]]):
    """Iterates over make_batch(step) for step = first_step, ..., last_step - 1, `depth` finished steps ahead
    of those that the workers hold.

    `workers` threads call `make_batch`, each for another step, and the batches come in the order of the steps; with 0
    `next` calls it. On a CUDA device batches are copied from page-locked memory on a stream of their own. An error in
    `make_batch` is raised by the `next` that would have given that batch, and by every one after it. `seconds_waited`
    is what `next` spent waiting so far. Close it, or use it as a context manager.
    """

    def __init__(
        self,
        make_batch: Callable[[int], Sequence[Batch]],
        first_step: int,
        last_step: int,
        device: torch.device | str = "cpu",
        depth: int = 2,
        workers: int = 1,
    ) -> None:
        self.seconds_waited = 0.0
        self._make_batch = make_batch
        self._device = torch.device(device)
        self._side = torch.cuda.Stream(self._device) if workers and self._device.type == "cuda" else None
        self._steps = iter(range(first_step, last_step))
        self._asked: SimpleQueue[tuple[int, Future[_Ready]] | None] = SimpleQueue()
        self._coming: deque[Future[_Ready]] = deque()
        for _ in range(depth + workers):
            self._ask()
        # No pool of concurrent.futures: at exit it would wait for a thread that waits for a remote shard.
        self._threads = [
            threading.Thread(target=self._work, name=f"megadec-prefetch-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __next__(self) -> Sequence[Batch]:
        began = time.perf_counter()
        if not self._coming:
            raise StopIteration
        if not self._threads and not self._coming[0].done():
            self._make_next()
        batches, copied = self._coming[0].result()
        self._coming.popleft()
        self._ask()
        self.seconds_waited += time.perf_counter() - began
        if copied is not None:
            # The caller's stream waits for the copy, and its memory stays until that stream is done with it.
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(copied)
            for tensor in (tensor for batch in batches for tensor in batch.tensors()):
                tensor.record_stream(stream)
        return batches

    def close(self) -> None:
        """End the threads and drop what they made. May be called twice."""
        for future in self._coming:
            future.cancel()
        self._coming.clear()
        for _ in self._threads:
            self._asked.put(None)
        # One patience for all: a thread that waits for a remote shard cannot be woken, and dies with this process.
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self) -> None:
        """Ask for one step more, where there is one."""
        if (step := next(self._steps, None)) is not None:
            self._coming.append(Future())
            self._asked.put((step, self._coming[-1]))

    def _work(self) -> None:
        while self._make_next():
            pass

    def _make_next(self) -> bool:
        """Make the next step that nobody has taken, as soon as one is asked for; False when there are none to come."""
        if (asked := self._asked.get()) is None:
            return False
        step, future = asked
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(self._copy(self._make_batch(step)))
            except BaseException as error:  # raised again in the thread that asks for the batch
                future.set_exception(error)
        return True

    def _copy(self, batches: Sequence[Batch]) -> _Ready:
        if self._side is None:
            return [batch.to(self._device) for batch in batches], None
        with torch.cuda.stream(self._side):
            copies = [batch.pin().to(self._device, non_blocking=True) for batch in batches]
            return copies, self._side.record_event()
