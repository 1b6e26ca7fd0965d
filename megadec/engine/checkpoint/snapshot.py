"""A copy of this rank's training state in host memory, which a thread can write while training goes on.

It takes as many bytes as the state has on this rank (12 for each of its trained parameters) and keeps them for the next
save: getting memory from the system takes longer than the copy itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator

import torch
from torch import Tensor

from megadec.common.log import logger
from megadec.engine.zero.state import ZeroState
from megadec.engine.zero.state_files import ShardSlice

log = logger(__name__)


class Snapshot:
    """Host memory for one state, filled again for every save. device: the one that the ranks train on."""

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
