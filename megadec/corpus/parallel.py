"""A function over a stream in several processes: the order is kept, and only a few items are on their way.

A slow item holds back those behind it, so that the output is the same for every number of workers.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context
from typing import TypeVar

from megadec.common.errors import MegadecError
from megadec.corpus.document import Document

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD_PER_WORKER = 3
CHUNK_DOCUMENTS, CHUNK_CHARACTERS = 256, 1 << 19


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> Generator[Result, None, None]:
    """`function` of each item, in order; with one worker or one item in this process, else in that many others.

    At most `3 * workers` items are waiting or done. What a worker raises is raised here. Raises MegadecError when a
    worker was killed. Close it when it is left before its end: a collector would do so in any thread, even the pool's.
    """
    items = iter(items)
    first = list(islice(items, 2))
    items = chain(first, items)
    if workers <= 1 or len(first) < 2:
        yield from map(function, items)
        return
    # spawn: a fork of a process that has threads (torch, pyarrow, a progress bar) may hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) >= AHEAD_PER_WORKER * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise MegadecError(
            "a worker process ended: memory ran out (try fewer --workers), or a script of yours calls megadec"
            " outside of `if __name__ == '__main__':`, which it needs as workers import it"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def chunks_of(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """The documents in lists, as much as is worth sending to a worker: 256, or fewer long ones."""
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text)
        if len(chunk) >= CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
