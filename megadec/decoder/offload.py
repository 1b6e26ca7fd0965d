"""Activations that wait for the backward pass in the host's memory.

In: a tensor on a GPU. Out: the same numbers on the GPU again, later. The copy out runs on a stream of its own beside
the computation, into pinned memory; the copy back is ordered before what needs it. Nothing is fetched ahead of its use,
so the backward pass waits for each copy (16 MiB at 50 GB/s: a third of a millisecond); in return there is nothing to
schedule.
"""

import functools
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from megadec.common.log import logger

log = logger(__name__)


class HostCopy:
    """A copy of a tensor in the host's memory. On a CPU it is a plain copy."""

    def __init__(self, x: Tensor) -> None:
        self._device = x.device
        self._host = torch.empty(x.shape, dtype=x.dtype, pin_memory=x.is_cuda)
        self._copied: torch.cuda.Event | None = None
        if not x.is_cuda:
            self._host.copy_(x.detach())
            return
        stream = _copy_stream(x.device)
        stream.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(stream):
            self._host.copy_(x.detach(), non_blocking=True)
            self._copied = stream.record_event()
        x.record_stream(stream)  # else its memory is given away while it is being read

    def back(self) -> Tensor:
        """The tensor on its device again."""
        if self._copied is None:
            return self._host.to(self._device)
        torch.cuda.current_stream(self._device).wait_event(self._copied)
        return self._host.to(self._device, non_blocking=True)


@functools.cache
def can_offload(device: torch.device) -> bool:
    """Whether there is a host to go to; on a CPU activations are there already, which is said once."""
    if device.type != "cuda":
        log.warning("model.execution.recompute.offload=true has no effect on a CPU: activations are in host memory")
    return device.type == "cuda"


def offloaded_input(x: Tensor) -> AbstractContextManager[object]:
    """Of what autograd keeps inside this context, x waits on the host; all else stays where it is."""
    address, shape = x.data_ptr(), x.shape

    def pack(kept: Tensor) -> Tensor | HostCopy:
        return HostCopy(kept) if kept.data_ptr() == address and kept.shape == shape else kept

    def unpack(kept: Tensor | HostCopy) -> Tensor:
        return kept.back() if isinstance(kept, HostCopy) else kept

    return torch.autograd.graph.saved_tensors_hooks(pack, unpack)


@functools.lru_cache(maxsize=8)
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
