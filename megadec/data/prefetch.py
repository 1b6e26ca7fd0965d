"""Makes batches ahead, in threads, and copies them to the device before they are asked for.

Threads, not processes: numpy releases the lock while it copies, and carrying a batch over takes longer than making it.
One thread is enough for shards on a local disk; remote shards want more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from megadec.common.errors import ConfigError
from megadec.data.batch import Batch

JOIN_SECONDS = 10.0
_Ready = tuple[Sequence[Batch], "torch.cuda.Event | None"]


@dataclass(frozen=True)
class PrefetchOptions:
    """How batches are made ahead of the training.

    workers: threads that make batches; 0: the training's own thread makes each when it needs it.
    prefetch_steps: steps made ahead of those that the workers hold; at most prefetch_steps + workers wait finished.
    """

    workers: int = 1
    prefetch_steps: int = 2

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"data.workers={self.workers} is negative; 0 makes each batch when it is wanted")
        if self.prefetch_steps < 1:
            raise ConfigError(f"data.prefetch_steps={self.prefetch_steps} is not at least 1")


class Prefetcher(Iterator[Sequence[Batch]]):
    """Iterates over make_batch(step) for step = first_step, ..., last_step - 1, `depth` finished steps ahead.

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
        self._wanted = self._next_step = first_step
        self._last_step = last_step
        self._ahead = depth + workers
        self._ready: dict[int, _Ready] = {}
        self._errors: dict[int, BaseException] = {}
        self._closed = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"megadec-prefetch-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def __next__(self) -> Sequence[Batch]:
        began = time.perf_counter()
        if self._closed or self._wanted >= self._last_step:
            raise StopIteration
        batches, copied = self._take() if self._threads else self._make_now()
        self.seconds_waited += time.perf_counter() - began
        if copied is not None:
            self._hand_over(batches, copied)
        return batches

    def close(self) -> None:
        """End the threads and drop what they made. May be called twice."""
        with self._changed:
            self._closed = True
            self._ready.clear()
            self._changed.notify_all()
        # One patience for all: a thread that waits for a remote shard cannot be woken, and dies with this process.
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self) -> _Ready:
        """Wait for the step that is wanted, and let the threads begin another."""
        with self._changed:
            self._changed.wait_for(lambda: self._wanted in self._ready or self._wanted in self._errors)
            if self._wanted in self._errors:
                raise self._errors[self._wanted]
            ready = self._ready.pop(self._wanted)
            self._wanted += 1
            self._changed.notify_all()
            return ready

    def _make_now(self) -> _Ready:
        ready = self._copy(self._make_batch(self._wanted), None)
        self._wanted += 1
        return ready

    def _work(self) -> None:
        """Take the next step that nobody has taken, make its batches, until there is none or one has failed."""
        side: torch.cuda.Stream | None = None
        while (step := self._begin()) is not None:
            try:
                if side is None and self._device.type == "cuda":
                    side = torch.cuda.Stream(self._device)
                ready = self._copy(self._make_batch(step), side)
            except BaseException as error:  # raised again in the thread that asks for the batch
                with self._changed:
                    self._errors[step] = error
                    self._changed.notify_all()
                return
            with self._changed:
                if self._closed:
                    return
                self._ready[step] = ready
                self._changed.notify_all()

    def _begin(self) -> int | None:
        """The next step for a thread, as soon as it may be made; None when there is nothing more to make."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended() or self._next_step < self._wanted + self._ahead)
            if self._ended():
                return None
            step = self._next_step
            self._next_step += 1
            return step

    def _ended(self) -> bool:
        return self._closed or bool(self._errors) or self._next_step >= self._last_step

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
