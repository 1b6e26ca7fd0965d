"""How many threads a rank computes with on a CPU.

In: the cores that this process may use, and how many ranks of the job share them. Out: torch's number of threads. torch
takes all cores for every process, so that two ranks on two cores run four threads and wait for each other at every
product. No rank is bound to cores of its own, because another job on the machine would be bound to the same ones;
DeepSpeed's `--bind_cores_to_rank` does that for who has the machine alone.
"""

from __future__ import annotations

import os

import torch

USERS_WORD = "OMP_NUM_THREADS"


def share_cores(local_ranks: int) -> int:
    """Give this rank its share of the cores that it may use, at least one; returns torch's number of threads.

    local_ranks: of this machine. What the environment says in OMP_NUM_THREADS stays.
    """
    if not os.environ.get(USERS_WORD):
        torch.set_num_threads(max(1, _cores() // local_ranks))
    return torch.get_num_threads()


def _cores() -> int:
    """The cores of this process; all of the machine's where the system does not say which are its own."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
