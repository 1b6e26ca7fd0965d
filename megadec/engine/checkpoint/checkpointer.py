"""Saving while training goes on: snapshot at a step boundary, write behind, and learn together that it is done.

In comes the state at a step, out goes a whole checkpoint some steps later. While a save is under way the ranks exchange
two numbers a step, so that all of them learn after the same step that the checkpoint has its name, or that a rank has
given up; and one save is under way at a time, so the next one may have to wait.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from types import TracebackType

from megadec.common.errors import StorageError
from megadec.common.log import logger
from megadec.engine.checkpoint.snapshot import Snapshot
from megadec.engine.checkpoint.writer import LOOK_SECONDS, PendingSave, Publish, Share
from megadec.engine.metrics.reports import Saved
from megadec.engine.ranks import Ranks
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import header_of

log = logger(__name__)


class AsyncCheckpointer:
    """The saves of a run, one at a time. `start`, `poll` and `wait` are collective.

    asynchronous: write behind training. snapshot_bytes: unless a rank's state is larger. retries, pause_seconds: how
    often a rank tries again when the disk skips_update, and after how long.
    """

    def __init__(
        self,
        live: ZeroState,
        ranks: Ranks,
        *,
        asynchronous: bool,
        snapshot_bytes: int | None,
        retries: int,
        pause_seconds: float,
    ) -> None:
        self._live, self._ranks = live, ranks
        self._asynchronous, self._snapshot_bytes = asynchronous, snapshot_bytes
        self._retries, self._pause_seconds = retries, pause_seconds
        self._snapshot = Snapshot(ranks.device)
        self._size_said = False
        self._pending: PendingSave | None = None

    @property
    def rank(self) -> int:
        """This rank's number."""
        return self._ranks.rank

    @property
    def optimizer_step(self) -> int | None:
        """How many updates the optimizer has made."""
        return self._live.optimizer_step

    def __enter__(self) -> AsyncCheckpointer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pending is not None:  # only after an error: the loop waits for the last save
            self._pending.end()

    def start(self, saved: Saved, small_files: Mapping[str, bytes], publish: Publish, began: float) -> Saved | None:
        """Begin to save the state as it is now; returns when training may change it. No other save is under way.

        saved: what `poll` or `wait` returns when the checkpoint has its name, with seconds and bytes filled in; it is
        returned here where nothing is written behind training. small_files: this rank's other files by their place
        below the checkpoint. publish: called in a thread of rank 0 to complete the folder and give it its name; again
        when the disk skips_update. began: since when training waits, by time.perf_counter.
        """
        assert self._pending is None
        slices = self._live.slices()
        size = sum(stretch.bytes for stretch in slices)
        header = header_of(slices, self._live.shapes, self._live.optimizer_step)
        behind = self._asynchronous and self._fits(size)
        if behind:
            self._snapshot.take(self._live, slices)
        share = Share(
            self._ranks.rank,
            self._ranks.world_size,
            header,
            self._snapshot.tensors if behind else self._live.tensors,
            small_files,
        )
        # A name for this attempt alone: what a killed run has left is never taken for a rank's share of this one.
        token = self._ranks.broadcast(f"{time.time_ns():x}")
        final = saved.path
        partial = final.with_name(f".{final.name}.{token}.partial")
        pending = self._pending = PendingSave(share, partial, final, publish, self._retries, self._pause_seconds)
        self._saved, self._began = replace(saved, bytes=size, asynchronous=behind), began
        pending.start(in_background=behind)
        pending.stall_seconds = time.perf_counter() - began
        return None if behind else self.wait()

    def poll(self) -> Saved | None:
        """Between two steps: the checkpoint, if the save under way is done. Collective.

        Raises StorageError on every rank if it failed.
        """
        pending = self._pending
        if pending is None:
            return None
        began = time.perf_counter()
        done, failed = self._ranks.sum_over_ranks([float(pending.done), float(pending.error is not None)])
        pending.stall_seconds += time.perf_counter() - began
        if failed:
            self._pending = None
            self._fail(pending)
        elif done == self._ranks.world_size:
            self._pending = None
            seconds = time.perf_counter() - self._began
            return replace(self._saved, stall_seconds=pending.stall_seconds, seconds=seconds)
        return None

    def wait(self) -> Saved | None:
        """Until no save is under way; the checkpoint, if one was. Raises StorageError on every rank if it failed."""
        saved = None
        while self._pending is not None:
            began = time.perf_counter()
            self._pending.wait(LOOK_SECONDS)
            self._pending.stall_seconds += time.perf_counter() - began
            saved = self.poll()
        return saved

    def _fits(self, size: int) -> bool:
        """Whether every rank may keep a copy of its state. Says once how much that is."""
        limit = self._snapshot_bytes
        if limit is None and self._live.on_disk:  # which is why it is there: the host has no room for it
            limit = 0
        [over] = self._ranks.sum_over_ranks([float(limit is not None and size > limit)])
        if not self._size_said:
            self._size_said = True
            if not over:
                log.info("saves go on behind training; %s bytes of host memory a rank hold the state", f"{size:,}")
            elif self._snapshot_bytes is None:
                log.warning("the state is on disk: saves stop training; checkpoint.snapshot_bytes, of the host's memory"
                            " and at least %s, lets them go on behind it", f"{size:,}")  # fmt: skip
            else:
                log.warning("a rank's state (here %s bytes) is above checkpoint.snapshot_bytes: saves stop training",
                            f"{size:,}")  # fmt: skip
        return not over

    def _fail(self, pending: PendingSave) -> None:
        pending.stop()
        reasons = self._ranks.all_gather(None if pending.error is None else str(pending.error) or repr(pending.error))
        if self._ranks.rank == 0:
            shutil.rmtree(pending.partial, ignore_errors=True)
        if pending.error is not None:
            raise pending.error
        first = next(number for number, reason in enumerate(reasons) if reason is not None)
        raise StorageError(f"rank {first} could not save {pending.final}: {reasons[first]}")
