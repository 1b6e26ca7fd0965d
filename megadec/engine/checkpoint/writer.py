"""One save on one rank: writes the rank's files in a thread, and on rank 0 completes the checkpoint.

Every rank leaves a note beside its files; rank 0 waits for all notes and publishes. That takes no message between
ranks, so a checkpoint that was begun is finished even when training has failed meanwhile. A shared file system may show
the notes late, which makes the checkpoint late and never training.
"""

import contextlib
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from megadec.common.errors import StorageError
from megadec.common.files import read_json, storage_errors
from megadec.common.log import logger
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.zero.state_files import ShardSlice, Sums, add_sums, rank_file, write_state

LOOK_SECONDS = 0.02
# After an error in training, a save that is under way may still be finished: how long its last rank is waited for.
PEERS_SECONDS = 10.0

# The unfinished folder, its final path, every file's size and hash, and every parameter's bit sums.
Publish = Callable[[Path, Path, dict[str, Any], Sums], None]

log = logger(__name__)


class _StoppedError(Exception):
    """Ends a thread whose save nobody wants any more."""


@dataclass
class PendingSave:
    """A save under way on one rank: a header with the tensors' slices after it, and small files.

    small_files: content by path in the checkpoint. done: this rank's files are written; on rank 0: the checkpoint has
    its name. error: why this rank has given up.
    """

    ranks: Ranks
    header: bytes
    tensors: Callable[[], Generator[tuple[ShardSlice, Tensor], None, None]]
    small_files: Mapping[str, bytes]
    partial: Path
    final: Path
    publish: Publish
    options: CheckpointOptions
    done: bool = False
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._written = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"save {self.final.name}", daemon=True)

    def start(self, *, in_background: bool) -> None:
        """Begin to write; False writes this rank's files in this thread. Raises nothing: see `error`."""
        if not in_background:
            self._caught(self._write)
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
            # This rank's files are written to their end, however long that takes; then the others have so much time.
            waited += LOOK_SECONDS if self._written else 0.0
        self.stop()
        if self.ranks.rank == 0:
            if self.done:
                log.info("saved %s", self.final)
            else:
                shutil.rmtree(self.partial, ignore_errors=True)

    def _run(self) -> None:
        if not self._written:
            self._caught(self._write)
        if self.ranks.rank == 0:
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

    def _write(self) -> None:
        self._retried(self._write_files)
        self._written = True

    def _retried(self, work: Callable[[], None]) -> None:
        """Do `work`; when the disk refuses, wait and do it again. Raises StorageError after the last time."""
        for left in range(self.options.retries, -1, -1):
            try:
                with storage_errors(self.partial):
                    work()
                return
            except (StorageError, OSError) as error:
                if not left:
                    if isinstance(error, StorageError):
                        raise
                    raise StorageError(f"{self.partial}: cannot write ({error})") from error
                pause = self.options.retry_pause_seconds
                log.error(
                    "%s. The state stays in memory; saving it again in %g s, %d more times", error, pause, left - 1
                )
                self._check(pause)

    def _check(self, seconds: float = 0.0) -> None:
        if self._stop.wait(seconds):
            raise _StoppedError

    def _write_files(self) -> None:
        name = rank_file(self.ranks.rank)
        try:
            # Closed also when the disk refuses: what reads moments from NVMe gives its buffers back.
            with contextlib.closing(self.tensors()) as tensors:
                entry, sums = write_state(self.partial / name, self.header, tensors, self._check)
            entries = {name: entry}
            for path, content in self.small_files.items():
                entries[path] = write_small(self.partial / path, content)
            # The name of the note is the last thing that is done here: rank 0 may rename the folder from then on.
            note = _note(self.partial, self.ranks.rank)
            temporary = note.with_suffix(".partial")
            temporary.write_text(json.dumps({"files": entries, "sums": sums}), encoding="utf-8")
            os.replace(temporary, note)
        except (OSError, StorageError):
            (self.partial / name).unlink(missing_ok=True)  # room for the other ranks
            raise

    def _complete(self) -> None:
        """On rank 0: wait for every rank's note, put them together, and publish."""
        files: dict[str, Any] = {}
        sums: Sums = {}
        notes = [_note(self.partial, rank) for rank in range(self.ranks.world_size)]
        for note in notes:
            while not note.exists():
                self._check(LOOK_SECONDS)
            values = read_json(note, StorageError)
            files |= values["files"]
            add_sums(sums, values["sums"])
        for note in notes:
            note.unlink()
        self._retried(lambda: self.publish(self.partial, self.final, files, sums))


def write_small(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file, and return its entry in a manifest."""
    path.write_bytes(content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _note(partial: Path, rank: int) -> Path:
    return partial / f"rank_{rank:05d}.json"
