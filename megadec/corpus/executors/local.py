"""Runs tasks in processes of this machine; the interface that every executor has."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from megadec.corpus.parallel import AHEAD_PER_WORKER, map_as_done, worker_pool


class Executor(Protocol):
    """Runs functions that leave their results in the work folder; functions, items and results are picklable.

    A context manager: leaving it ends the workers, at once where an exception leaves it.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None: ...

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], work: Path) -> Iterator[Any]:
        """`function` of each item, as they are done. Raises what it raises."""


class LocalExecutor:
    """So many processes, which stay from one `run` to the next; with one, this process."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], work: Path) -> Iterator[Any]:
        """Items are taken as workers get free. Leaving the executor raises WorkerLostError when one was killed."""
        if self.workers <= 1:
            return map(function, items)
        if self._pool is None:
            self._pool = self._stack.enter_context(worker_pool(self.workers))
        return map_as_done(function, items, self._pool, AHEAD_PER_WORKER * self.workers)
