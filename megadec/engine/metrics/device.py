"""What a device could do, and the most memory that was held on it."""

import resource
import sys

import torch

from megadec.engine.metrics.devices import find_device
from megadec.engine.metrics.options import MetricsOptions


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory this process has held: on the device for CUDA, resident for CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_flops(options: MetricsOptions, device: torch.device) -> float | None:
    """Peak floating-point operations a second of one device, or None where nobody knows."""
    if options.peak_flops is not None or device.type != "cuda":
        return options.peak_flops
    known = find_device(torch.cuda.get_device_name(device))
    return known.peak_flops if known else None
