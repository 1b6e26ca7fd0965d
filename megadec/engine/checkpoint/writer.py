"""One save on one rank: its share of the files, written in a thread, and on rank 0 the whole checkpoint.

In come tensors that nobody changes meanwhile, out goes a folder with a name. Every rank writes its share, hashing as it
goes, and leaves a note beside it; rank 0 waits for all notes and publishes. No message between ranks is needed for
that, so a checkpoint that was begun is finished even when training has failed meanwhile. The notes go through the
shared file system, which may show them late; what is late is the name of a checkpoint, never training.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from megadec.common.errors import StorageError
from megadec.common.files import read_json, storage_errors
from megadec.common.log import logger
from megadec.engine.zero.state_files import ShardSlice, rank_file, write_state

LOOK_SECONDS = 0.02
# After an error in training, a save that is under way may still be finished: so long its last rank is waited for.
PEERS_SECONDS = 10.0

Sums = dict[str, dict[str, int]]
# The unfinished folder, its final path, every file's size and hash, and every parameter's bit sums.
Publish = Callable[[Path, Path, dict[str, Any], Sums], None]

log = logger(__name__)


class _StoppedError(Exception):
    """Ends a thread whose save nobody wants any more."""


@dataclass(frozen=True)
class Share:
    """What one rank writes: a header with the slices after it, and small files by their place in the checkpoint."""

    rank: int
    ranks: int
    header: bytes
    tensors: Callable[[], Generator[tuple[ShardSlice, Tensor], None, None]]
    small_files: Mapping[str, bytes]


class PendingSave:
    """A save under way.

    retries, pause_seconds: how often a rank writes again when the disk skips_update, and how long after.
    """

    def __init__(
        self, share: Share, partial: Path, final: Path, publish: Publish, retries: int, pause_seconds: float
    ) -> None:
        self.partial, self.final = partial, final
        self.began = time.perf_counter()
        self.stall_seconds = 0.0
        self.done = False
        """This rank's share is written; on rank 0: the checkpoint has its name."""
        self.error: Exception | None = None
        """Why this rank has given up."""
        self._share = share
        self._publish = publish
        self._retries, self._pause_seconds = retries, pause_seconds
        self._written = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"save {final.name}", daemon=True)

    def start(self, *, in_background: bool) -> None:
        """Begin to write; not in the background, the share is written in this thread. Raises nothing: see `error`."""
        if not in_background:
            self._caught(self._write_share)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until the thread has ended, or so long."""
        self._thread.join(seconds)

    def stop(self) -> None:
        """End the thread, at the next block, without a checkpoint."""
        self._stop.set()
        self._thread.join()

    def end(self) -> None:
        """Training has failed: finish what can be finished without asking the other ranks, and clean up the rest."""
        waited = 0.0
        while self._thread.is_alive() and waited < PEERS_SECONDS:
            self._thread.join(LOOK_SECONDS)
            # A share is written to its end, however long that takes; then the others have so much time.
            waited += LOOK_SECONDS if self._written else 0.0
        self.stop()
        if self._share.rank == 0:
            if self.done:
                log.info("saved %s", self.final)
            else:
                shutil.rmtree(self.partial, ignore_errors=True)

    def _run(self) -> None:
        self._caught(self._write_share)
        if self._share.rank == 0:
            self._caught(self._complete)
        self.done = self.error is None and not self._stop.is_set()

    def _caught(self, work: Callable[[], None]) -> None:
        if self.error is None:
            try:
                work()
            except _StoppedError:
                pass
            except Exception as error:  # it belongs to the thread of training, which asks for it
                self.error = error

    def _write_share(self) -> None:
        if not self._written:
            self._retried(self._write)
            self._written = True

    def _retried(self, work: Callable[[], None]) -> None:
        """Do `work`; when the disk skips_update, say so, wait, and do it again. Raises StorageError after the last
        time."""
        for left in range(self._retries, -1, -1):
            try:
                with storage_errors(self.partial):
                    work()
                return
            except (StorageError, OSError) as error:
                if not left:
                    raise _named(error, self.partial) from error
                log.error(
                    "%s. The state stays in memory; saving it again in %g s, and %d time(s) more after that",
                    error,
                    self._pause_seconds,
                    left - 1,
                )
                self._check(self._pause_seconds)

    def _check(self, seconds: float = 0.0) -> None:
        if self._stop.wait(seconds) if seconds else self._stop.is_set():
            raise _StoppedError

    def _write(self) -> None:
        place = rank_file(self._share.rank)
        file = self.partial / place
        try:
            # Closed also when the disk skips_update: what reads moments from NVMe gives its buffers back.
            with contextlib.closing(self._share.tensors()) as tensors:
                written = write_state(file, self._share.header, tensors, self._check)
            files = {place: {"bytes": written.bytes, "sha256": written.sha256}}
            for name, content in self._share.small_files.items():
                files[name] = write_small(self.partial / name, content)
            _leave(_note(self.partial, self._share.rank), {"files": files, "sums": written.sums})
        except (OSError, StorageError):
            file.unlink(missing_ok=True)  # room for the other ranks
            raise

    def _complete(self) -> None:
        """On rank 0: wait for every rank's note, put them together, and publish."""
        files: dict[str, Any] = {}
        sums: Sums = {}
        notes = [_note(self.partial, rank) for rank in range(self._share.ranks)]
        for note in notes:
            while not note.exists():
                self._check(LOOK_SECONDS)
            values = read_json(note, StorageError)
            files |= values["files"]
            add_sums(sums, values["sums"])
        for note in notes:
            note.unlink()
        self._retried(lambda: self._publish(self.partial, self.final, files, sums))


def write_small(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file; its entry in a manifest."""
    path.write_bytes(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def add_sums(total: Sums, more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the `bit_sum`s of other elements of the same parameters to `total`."""
    for name, parts in more.items():
        for part, value in parts.items():
            known = total.setdefault(name, {})
            known[part] = (known.get(part, 0) + value) % 2**64


def _leave(note: Path, values: dict[str, Any]) -> None:
    """Write a note. Its name is the last thing that is done here: rank 0 may rename the folder from then on."""
    temporary = note.with_suffix(".partial")
    temporary.write_text(json.dumps(values), encoding="utf-8")
    os.replace(temporary, note)


def _named(error: Exception, path: Path) -> StorageError:
    return error if isinstance(error, StorageError) else StorageError(f"{path}: cannot write ({error})")


def _note(partial: Path, rank: int) -> Path:
    return partial / f"rank_{rank:05d}.json"
