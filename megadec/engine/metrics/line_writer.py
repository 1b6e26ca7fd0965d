"""A file that grows line by line, and whose lines wait in memory while the disk is full.

In come lines, out goes a file that has them in order. A process that is killed while the disk is full loses the lines
that waited; one that ended because of them would lose the training state.
"""

from __future__ import annotations

from pathlib import Path

from megadec.common.errors import StorageError
from megadec.common.files import storage_errors
from megadec.common.log import logger

log = logger(__name__)


class LineWriter:
    """Appends to `path`. Raises StorageError when it cannot be opened, and at the end when lines are left over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting = b""
        self._said = False
        with storage_errors(path):
            # Without a buffer, what was written and what was not is known at every moment.
            self._stream = open(path, "ab", buffering=0)  # noqa: SIM115 closed in close

    def write(self, line: str) -> None:
        """Append a line, or keep it until the disk takes it."""
        self._waiting += line.encode() + b"\n"
        try:
            self._flush()
        except StorageError as error:
            if not self._said:
                log.error("%s. Its lines stay in memory until it can be written", error)
                self._said = True

    def close(self) -> None:
        """Write what is left. Raises StorageError."""
        with self._stream:
            self._flush()

    def _flush(self) -> None:
        with storage_errors(self._path):
            while self._waiting:
                self._waiting = self._waiting[self._stream.write(self._waiting) :]
        self._said = False
