"""What a device could do, and the most memory that was held on it."""

import resource
import sys

import torch

from megadec.engine.metrics.options import MetricsOptions

# Dense bf16 peak of one device by its makers' data sheets, where the run does not state one; the first whose name is in
# the device's counts. A CPU's is not known.
PEAK_FLOPS_BY_NAME = {
    "H200": 989e12, "H100": 989e12, "H800": 989e12, "H20": 148e12, "A100": 312e12, "A800": 312e12, "L40S": 362e12,
}  # fmt: skip


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
    name = torch.cuda.get_device_name(device)
    return next((peak for key, peak in PEAK_FLOPS_BY_NAME.items() if key in name), None)
