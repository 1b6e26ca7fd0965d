"""How this process gets memory from the system when it trains on a CPU.

In: nothing. Out: a C library that keeps what it was given. glibc hands every large block back when it is freed and asks
for it again a moment later, and the system then gives it page by page, each filled with zeros: for 28 million
parameters and rows of 512 tokens about 100,000 page faults a step. Memory that was needed once stays with the process,
which costs nothing in a step that always needs the same.
"""

from __future__ import annotations

import ctypes
import os
import sys

# From glibc's malloc.h: parameters of mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_NEVER_TRIM = 2**31 - 1
# Blocks above this still come from the system each time: they would leave holes that little else fits.
LARGEST_KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next allocation. False where there is no glibc, or the user has spoken.

    The environment's MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_ and GLIBC_TUNABLES are the user's words.
    """
    spoken = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    if sys.platform != "linux" or any(name in os.environ for name in spoken):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES) and mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM))
