"""What a person sees while a command runs: log lines and progress bars, both on standard error.

Standard output stays free for results. Only rank 0 logs below WARNING, so a message that another rank alone could give
must be a warning or an error.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

from tqdm import tqdm

from megadec.common.ranks import is_first, rank, world_size

_ROOT = "megadec"


class _StandardError(logging.StreamHandler[Any]):
    """Writes to whatever sys.stderr is now (a test or a notebook may have replaced it), around progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def logger(name: str) -> logging.Logger:
    """A logger below `megadec`; the first call sets up the one handler."""
    root = logging.getLogger(_ROOT)
    if not root.handlers:
        handler = _StandardError()
        place = f" [rank {rank()}]" if world_size() > 1 else ""
        handler.setFormatter(logging.Formatter(f"%(asctime)s{place} %(message)s", datefmt="%H:%M:%S"))
        root.addHandler(handler)
        root.setLevel(logging.INFO if is_first() else logging.WARNING)
        root.propagate = False
    return root if name == _ROOT else root.getChild(name.removeprefix(f"{_ROOT}."))


def progress(
    items: Iterable[Any] | None = None,
    *,
    description: str,
    total: float | None = None,
    unit: str = "it",
    initial: int = 0,
    line_seconds: float = 30.0,
) -> "tqdm[Any] | ProgressLines":
    """A progress bar on a terminal, a plain line at most every `line_seconds` elsewhere; nothing on other ranks."""
    if not sys.stderr.isatty():
        return ProgressLines(items, description, total, unit, initial, line_seconds)
    # Some containers' terminals say that they are 0 columns wide, where tqdm would show nothing.
    unsized = not os.get_terminal_size(sys.stderr.fileno()).columns
    return tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        unit_scale=True,
        initial=initial,
        disable=not is_first(),
        mininterval=0.5,
        dynamic_ncols=not unsized,
        ncols=100 if unsized else None,
        nrows=24 if unsized else None,
        file=sys.stderr,
    )


class ProgressLines:
    """What is used of tqdm, for a log file: whole lines, each of which says all, instead of one that is drawn anew."""

    def __init__(
        self,
        items: Iterable[Any] | None,
        description: str,
        total: float | None,
        unit: str,
        initial: int,
        line_seconds: float,
    ) -> None:
        self._items, self._done, self._line_seconds = items, initial, line_seconds
        self._how: dict[str, Any] = {
            "prefix": description,
            "total": total,
            "unit": unit,
            "initial": initial,
            "ncols": 0,
        }
        self._shown = ""
        self._began = self._said = time.monotonic()
        self._said_done: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        with self:
            for item in self._items or ():
                yield item
                self.update(1)

    def set_postfix(self, values: Mapping[str, str], refresh: bool = False) -> None:
        """What the next line says beside how far it is."""
        self._shown = ", ".join(f"{name}={value}" for name, value in values.items())

    def update(self, more: int) -> None:
        """Count what was done, and say so when it is time."""
        self._done += more
        if time.monotonic() - self._said >= self._line_seconds:
            self._say()

    def close(self) -> None:
        """Say the last of it, once."""
        if self._said_done != self._done:
            self._say()

    def _say(self) -> None:
        self._said, self._said_done = time.monotonic(), self._done
        seconds = self._said - self._began
        logger(_ROOT).info(tqdm.format_meter(self._done, elapsed=seconds, postfix=self._shown, **self._how))
