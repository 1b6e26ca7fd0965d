"""How a rank uses the memory and the cores of the machine when it trains on a CPU.

glibc hands every large block back when it is freed and asks for it again a moment later, and the system then gives it
page by page, each filled with zeros: for 28 million parameters and sequences of 512 tokens about 100,000 page faults a
step. torch takes all cores for every process, so that two ranks on two cores run four threads and wait for each other
at every product.
"""

import ctypes
import os
import sys

import torch

# From glibc's malloc.h: parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM = 2**31 - 1
# Blocks above this still come from the system each time: they would leave holes that little else fits.
LARGEST_KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next allocation. False where there is no glibc, or the user has set it:
    MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ or GLIBC_TUNABLES is in the environment.
    """
    stated = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if sys.platform != "linux" or any(name in os.environ for name in stated):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))


def share_cores(local_ranks: int) -> int:
    """Give this rank its part of the cores that the process may use, at least one; returns torch's number of threads.

    local_ranks: of this machine. A number in OMP_NUM_THREADS stays. Ranks are not pinned to cores, since two jobs
    would pin the same ones; DeepSpeed's `--bind_cores_to_rank` does that.
    """
    if not os.environ.get("OMP_NUM_THREADS"):
        mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, mine // local_ranks))
    return torch.get_num_threads()
