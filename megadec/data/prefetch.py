"""Batches made ahead, in a thread, and on the device before they are asked for.

In: a function from a step to its batches. Out: the same batches, in order, on `device`. Trade-off: one thread, because
a batch takes a fraction of a millisecond to make and numpy lets go of the interpreter's lock while it copies; more
threads would only take memory.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

import torch

from megadec.data.batch import Batch

JOIN_SECONDS = 10.0
_Ready = tuple[Sequence[Batch], "torch.cuda.Event | None"]


class Prefetcher(Iterator[Sequence[Batch]]):
    """Iterates over make_batch(step) for step = first_step, ..., last_step - 1, up to `depth` steps ahead.

    On a CUDA device batches are copied from page-locked memory on a stream of their own. An error in `make_batch` is
    raised by the `next` that would have given that batch. `seconds_waited` is what `next` spent waiting so far. Close
    it, or use it as a context manager.
    """

    def __init__(
        self,
        make_batch: Callable[[int], Sequence[Batch]],
        first_step: int,
        last_step: int,
        device: torch.device | str = "cpu",
        depth: int = 2,
    ) -> None:
        self.seconds_waited = 0.0
        self._make_batch = make_batch
        self._device = torch.device(device)
        self._depth = depth
        self._left = max(last_step - first_step, 0)
        self._ready: deque[_Ready] = deque()
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._work, args=(first_step, last_step), name="megadec-prefetch", daemon=True
        )
        self._thread.start()

    def __next__(self) -> Sequence[Batch]:
        began = time.perf_counter()
        with self._changed:
            if self._closed or self._left == 0:
                raise StopIteration
            self._changed.wait_for(lambda: self._ready or self._error is not None)
            self.seconds_waited += time.perf_counter() - began
            if not self._ready:
                assert self._error is not None
                raise self._error
            batches, copied = self._ready.popleft()
            self._left -= 1
            self._changed.notify_all()
        if copied is not None:
            self._hand_over(batches, copied)
        return batches

    def close(self) -> None:
        """End the thread and drop what it made. May be called twice."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join(JOIN_SECONDS)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, first_step: int, last_step: int) -> None:
        try:
            side = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
            for step in range(first_step, last_step):
                ready = self._copy(self._make_batch(step), side)
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or len(self._ready) < self._depth)
                    if self._closed:
                        return
                    self._ready.append(ready)
                    self._changed.notify_all()
        except BaseException as error:  # raised again in the thread that asks for the batch
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _copy(self, batches: Sequence[Batch], side: torch.cuda.Stream | None) -> _Ready:
        if side is None:
            return [batch.to(self._device) for batch in batches], None
        with torch.cuda.stream(side):
            copies = [batch.pin().to(self._device, non_blocking=True) for batch in batches]
            copied = torch.cuda.Event()
            copied.record(side)
        return copies, copied

    def _hand_over(self, batches: Sequence[Batch], copied: torch.cuda.Event) -> None:
        """Make the caller's stream wait for the copy, and its memory stay until that stream is done with it."""
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(copied)
        for batch in batches:
            for tensor in batch.tensors():
                tensor.record_stream(stream)
