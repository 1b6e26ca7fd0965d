"""Runs tasks in processes of this machine; the interface that every executor has."""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from megadec.corpus.parallel import map_as_done


class Executor(Protocol):
    """Runs functions that leave their results in the work folder; functions, items and results are picklable."""

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], work: Path) -> Generator[Any, None, None]:
        """`function` of each item, as they are done. Raises what it raises; closing it ends what is under way."""


@dataclass(frozen=True)
class LocalExecutor:
    """So many processes; with one, this process."""

    workers: int

    def run(self, function: Callable[[Any], Any], items: Iterable[Any], work: Path) -> Generator[Any, None, None]:
        """Items are taken as workers get free. Raises WorkerLostError when a worker was killed."""
        return map_as_done(function, items, self.workers)
