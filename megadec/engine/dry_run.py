"""The largest micro-batch once before the first step: what does not fit into memory is one error, with the ways out.

Gradients, random states and DeepSpeed's counters are dropped or put back, so no number of a run depends on it. What
comes first in an update is not tried: at stage 0 the optimizer's moments, which other stages hold from the beginning.
"""

import contextlib
from collections.abc import Iterator

import torch

from megadec.common.errors import TrainingError
from megadec.common.ranks import rank
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine

# How allocators, libraries and Python say it; not every one of them has an exception of its own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def dry_run(engine: ZeroEngine, job: Job, step: int) -> None:
    """Take the largest micro-batch of step `step` (from 0) forward and backward, and forget it. Collective.

    Raises TrainingError on a rank that runs out of memory.
    """
    ranks, micro = engine.ranks, job.run.train.micro_batch_size
    if job.task.largest_batch is None:
        batch = job.task.stream.batch(step, ranks.rank, ranks.world_size, micro)[0]
    else:
        batch = job.task.largest_batch(micro)
    with torch.random.fork_rng([ranks.device] if ranks.device.type == "cuda" else []), memory_errors(job):
        engine.dry_run(batch.to(ranks.device))


@contextlib.contextmanager
def memory_errors(job: Job) -> Iterator[None]:
    """Turn an error of running out of memory into a TrainingError that names the ways out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        shorter = "data.sequence_length shorter, or model.execution.recompute.mode=full"
        if job.task.kind == "seq2seq":
            shorter = "data.max_source_tokens and data.max_target_tokens smaller"
        raise TrainingError(
            f"rank {rank()} ran out of memory ({str(error).partition('. ')[0] or 'MemoryError'}): make"
            f" train.micro_batch_size={job.run.train.micro_batch_size} smaller (train.global_batch_size may stay),"
            f" {shorter}; or use more ranks, a higher ZeRO stage, or offloading (ds_configs/README.md)"
        ) from error
