"""Asynchronous checkpointing: copies the training state at a step boundary and writes it in a background thread.

While a save is under way the ranks exchange two numbers a step, so that all of them learn after the same step that it
is finished, or that a rank has given up. One save is under way at a time; the next one may have to wait.
"""

import contextlib
import shutil
import time
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from megadec.common.errors import StorageError
from megadec.common.log import logger
from megadec.engine.checkpoint.writer import LOOK_SECONDS, PendingSave, Publish
from megadec.engine.metrics.reports import Saved
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CheckpointOptions
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import ShardSlice, header_of

log = logger(__name__)


class Snapshot:
    """A copy of this rank's training state in host memory, which a thread can write while training goes on.

    It takes as many bytes as the state has on this rank (12 for each of its trained parameters) and keeps them for the
    next save: getting memory from the system takes longer than the copy itself. device: the one that ranks train on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._locked = False
        self._slices: list[ShardSlice] = []

    def take(self, live: ZeroState, slices: list[ShardSlice]) -> None:
        """Copy every tensor of the state; on return nothing of it is looked at any more."""
        size = sum(shard.bytes for shard in slices)
        if self._memory.numel() != size:
            self._replace_memory(size)
        self._slices = slices
        for (own, copy), (shard, tensor) in zip(self.tensors(), live.tensors(), strict=True):
            assert own == shard, (own, shard)
            # Asynchronous where the memory is locked: a GPU copies all of it in one go.
            copy.copy_(tensor.detach(), non_blocking=True)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def tensors(self) -> Generator[tuple[ShardSlice, Tensor], None, None]:
        """The copies, in the order of the state."""
        offset = 0
        for shard in self._slices:
            yield shard, self._memory.narrow(0, offset, shard.bytes).view(shard.dtype)
            offset += shard.bytes

    def _replace_memory(self, size: int) -> None:
        """Locked where there is a GPU, which then copies at full speed.

        Locked by hand: torch's own allocator of locked memory would round the size up to a power of two.
        """
        if self._locked:
            torch.cuda.cudart().cudaHostUnregister(self._memory.data_ptr())
        self._memory = torch.empty(size, dtype=torch.uint8)
        self._locked = False
        if size and self._device.type == "cuda":
            status = torch.cuda.cudart().cudaHostRegister(self._memory.data_ptr(), size, 0)
            self._locked = int(status) == 0
            if not self._locked:
                log.warning("%d bytes could not be locked (%s): copies for a save are slower", size, status)
                # CUDA keeps the error for whoever asks next, which would be a kernel of the training.
                with contextlib.suppress(RuntimeError):
                    torch.zeros(1, device=self._device)


class AsyncCheckpointer:
    """The saves of a run, one at a time. `start`, `poll` and `wait` are collective."""

    def __init__(self, live: ZeroState, ranks: Ranks, options: CheckpointOptions) -> None:
        self._live, self._ranks, self._options = live, ranks, options
        self._snapshot = Snapshot(ranks.device)
        self._size_said = False
        self._pending: PendingSave | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pending is not None:  # only after an error: the loop waits for the last save
            self._pending.end()

    def start(self, saved: Saved, small_files: Mapping[str, bytes], publish: Publish, began: float) -> Saved | None:
        """Begin to save the state as it is now; returns when training may change it. No other save is under way.

        saved: what `poll` or `wait` returns when the checkpoint is finished, with seconds and bytes filled in; it is
        returned here where training waits for it. small_files: this rank's other files by their path in the checkpoint.
        publish: called in a thread of rank 0 to complete the folder and give it its name, and again when the disk
        refuses. began: since when training waits, by time.perf_counter.
        """
        assert self._pending is None
        slices = self._live.slices()
        size = sum(shard.bytes for shard in slices)
        header = header_of(slices, self._live.shapes, self._live.optimizer_step)
        background = self._options.asynchronous and self._fits(size)
        if background:
            self._snapshot.take(self._live, slices)
        tensors = self._snapshot.tensors if background else self._live.tensors
        # A name for this attempt alone: what a killed run has left is never taken for a file of this one.
        token = self._ranks.broadcast(f"{time.time_ns():x}")
        final = saved.path
        partial = final.with_name(f".{final.name}.{token}.partial")
        self._pending = PendingSave(self._ranks, header, tensors, small_files, partial, final, publish, self._options)
        self._pending.start(in_background=background)
        self._saved, self._began = replace(saved, bytes=size, asynchronous=background), began
        self._add_stall(began)
        return None if background else self.wait()

    def poll(self) -> Saved | None:
        """Between two steps: the checkpoint, if the save under way is done. Collective.

        Raises StorageError on every rank if it failed.
        """
        pending = self._pending
        if pending is None:
            return None
        began = time.perf_counter()
        done, failed = self._ranks.sum_over_ranks([float(pending.done), float(pending.error is not None)])
        self._add_stall(began)
        if failed:
            self._pending = None
            self._fail(pending)
        elif done == self._ranks.world_size:
            self._pending = None
            return replace(self._saved, seconds=time.perf_counter() - self._began)
        return None

    def wait(self) -> Saved | None:
        """Until no save is under way; the checkpoint, if one was. Raises StorageError on every rank if it failed."""
        saved = None
        while self._pending is not None:
            began = time.perf_counter()
            self._pending.wait(LOOK_SECONDS)
            self._add_stall(began)
            saved = self.poll()
        return saved

    def _add_stall(self, began: float) -> None:
        self._saved = replace(self._saved, stall_seconds=self._saved.stall_seconds + time.perf_counter() - began)

    def _fits(self, size: int) -> bool:
        """Whether every rank may keep a copy of its state. Says once how much that is."""
        limit = self._options.snapshot_bytes
        if limit is None and self._live.on_disk:  # which is why it is there: the host has no room for it
            limit = 0
        [over] = self._ranks.sum_over_ranks([float(limit is not None and size > limit)])
        if not self._size_said:
            self._size_said = True
            if over:
                log.warning(
                    f"a rank's state (here {size:,} bytes) is above checkpoint.snapshot_bytes (unless stated, 0 where"
                    " the state is on disk), so training waits for saves"
                )
            else:
                log.info("training goes on during saves; %s bytes of host memory a rank hold the state", f"{size:,}")
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
