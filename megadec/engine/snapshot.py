"""A copy of this rank's training state in host memory, which a thread can write while training goes on.

In comes the live state, out go the same stretches that nobody changes. Trade-off: the copy costs the host as many bytes
as the state has on this rank (12 for each of its trained parameters), and keeps them for the next save, because memory
that the system must first hand out makes training wait longer than the copy itself.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from megadec.common.log import logger
from megadec.engine.live_state import LiveState
from megadec.engine.state_files import Stretch

log = logger(__name__)


class Snapshot:
    """Host memory for one state, filled again for every save."""

    def __init__(self) -> None:
        self._memory = torch.empty(0, dtype=torch.uint8)
        self._stretches: list[Stretch] = []

    def take(self, live: LiveState, stretches: list[Stretch]) -> None:
        """Copy every tensor of the state; on return nothing of it is looked at any more."""
        wanted = sum(stretch.bytes for stretch in stretches)
        if self._memory.numel() != wanted:
            self._memory = _host_memory(wanted)
        self._stretches = stretches
        copies = self.tensors()
        for stretch, tensor in live.tensors():
            own, copy = next(copies)
            assert own == stretch, (own, stretch)
            # Asynchronous where the memory is locked: a GPU copies all of it in one go.
            copy.copy_(tensor.detach(), non_blocking=True)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    def tensors(self) -> Iterator[tuple[Stretch, Tensor]]:
        """The copies, in the order of the state."""
        offset = 0
        for stretch in self._stretches:
            yield stretch, self._memory.narrow(0, offset, stretch.bytes).view(stretch.dtype)
            offset += stretch.bytes


def _host_memory(size: int) -> Tensor:
    """Memory for copies from this rank's device; locked where there is a GPU, which then copies at full speed.

    Locked by hand: torch's own allocator of locked memory would round the size up to a power of two.
    """
    memory = torch.empty(size, dtype=torch.uint8)
    if size and torch.cuda.is_available():
        status = torch.cuda.cudart().cudaHostRegister(memory.data_ptr(), size, 0)
        if int(status) != 0:
            log.warning("%d bytes of host memory could not be locked (%s); copies for a save are slower", size, status)
    return memory
