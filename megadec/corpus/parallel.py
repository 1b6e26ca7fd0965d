"""A function over a stream in several processes, in order or as they are done; only a few items are on their way.

A slow item holds back those behind it where the order counts, so that the output is the same for every number of
workers. Workers end with the process that started them, however that ends.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from typing import TypeVar

from megadec.common.errors import MegadecError
from megadec.corpus.document import Document

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD_PER_WORKER = 3
CHUNK_DOCUMENTS, CHUNK_CHARACTERS = 256, 1 << 19


class WorkerLostError(MegadecError):
    """A worker process was ended from outside."""


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`function` of each item, in order; with one worker or one item in this process, else in that many others.

    At most `3 * workers` items are waiting or done. What a worker raises is raised here. Raises WorkerLostError when a
    worker was killed. Close it when it is left before its end: a collector would do so in any thread, even the pool's.
    """
    items = iter(items)
    first = list(islice(items, 2))
    items = chain(first, items)
    if workers <= 1 or len(first) < 2:
        yield from map(function, items)
        return
    ahead: deque[Future[Result]] = deque()
    with worker_pool(workers) as pool:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= AHEAD_PER_WORKER * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def map_as_done(
    function: Callable[[Item], Result], items: Iterable[Item], pool: ProcessPoolExecutor, most: int
) -> Generator[Result, None, None]:
    """`function` of each item as they are done, in a `worker_pool`; at most `most` are waiting or under way."""
    waiting: set[Future[Result]] = set()
    for item in items:
        waiting.add(pool.submit(function, item))
        if len(waiting) >= most:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        yield from (future.result() for future in done)


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes; those of a block that is left by an exception are killed, whatever they are at.

    Raises WorkerLostError when a worker was killed from outside.
    """
    # spawn: a fork of a process that has threads (torch, pyarrow, a progress bar) may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_be_worker)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise WorkerLostError(
            "a worker process ended: memory ran out (try fewer --workers), or a script of yours calls megadec"
            " outside of `if __name__ == '__main__':`, which it needs as workers import it"
        ) from error
    except BaseException:
        for process in list(pool._processes.values()):
            process.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _be_worker() -> None:
    """End when the parent has ended, even by SIGKILL; Ctrl-C, which reaches all of a terminal, is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def chunks_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in lists, as much as is worth sending to a worker: 256, or fewer long ones."""
    return grouped(documents, lambda document: len(document.text), CHUNK_DOCUMENTS, CHUNK_CHARACTERS)


def grouped(
    items: Iterable[Item], characters: Callable[[Item], int], most_items: int, most_characters: int
) -> Iterator[list[Item]]:
    """The items in lists, each of which ends when it has so many items, or at least so many characters."""
    group: list[Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += characters(item)
        if len(group) >= most_items or size >= most_characters:
            yield group
            group, size = [], 0
    if group:
        yield group
