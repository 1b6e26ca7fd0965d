"""What a person sees while a command runs: log lines and progress bars, both on standard error.

Standard output stays free for results. Only rank 0 logs below WARNING, so a message that another rank alone could give
must be a warning or an error.
"""

import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

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
) -> "tqdm[Any]":
    """A progress bar on rank 0: live on a terminal, a line every half minute in a log file, nothing on other ranks."""
    live = sys.stderr.isatty()
    # Some containers' terminals say that they are 0 columns wide, where tqdm would show nothing.
    unsized = live and not os.get_terminal_size(sys.stderr.fileno()).columns
    return tqdm(
        items,
        desc=description,
        total=total,
        unit=unit,
        unit_scale=True,
        initial=initial,
        disable=not is_first(),
        mininterval=0.5 if live else 30.0,
        dynamic_ncols=live and not unsized,
        ncols=100 if unsized else None,
        nrows=24 if unsized else None,
        file=sys.stderr,
    )
