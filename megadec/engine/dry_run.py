"""The largest micro-batch once before the first step: what does not fit into memory is one error, with the ways out.

Gradients, random states and DeepSpeed's counters are dropped or put back, so no number of a run depends on it. What
comes first in an update is not tried: at stage 0 the optimizer's moments, which other stages hold from the beginning.
"""

import contextlib
from collections.abc import Iterator

import torch

from megadec.common.errors import TrainingError
from megadec.common.ranks import rank
from megadec.data.batch import Batch
from megadec.engine.course import enter_stage
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine

# How allocators, libraries and Python say it; not every one of them has an exception of its own.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def dry_run(engine: ZeroEngine, job: Job, step: int) -> None:
    """Take the largest micro-batch from step `step` (from 0) on forward and backward, and forget it. Collective.

    Raises TrainingError on a rank that runs out of memory.
    """
    ranks = engine.ranks
    if job.task.largest_batch is None:
        # Of every stage that is still to come the first step, and of these the largest.
        steps = [step + 1, *(stage.first_step for stage in job.changes if stage.first_step > step + 1)]
        largest, batch = max(((first, _first_batch(job, ranks, first)) for first in steps), key=_tokens)
    else:
        largest, batch = step + 1, job.task.largest_batch(job.run.train.micro_batch_size)
    enter_stage(engine, job, largest)
    with torch.random.fork_rng([ranks.device] if ranks.device.type == "cuda" else []), memory_errors(job, largest):
        engine.dry_run(batch.to(ranks.device))
    enter_stage(engine, job, step)


def _first_batch(job: Job, ranks: Ranks, step: int) -> Batch:
    """This rank's first micro-batch of a step, counted from 1."""
    micro = job.stage_of(step).run.train.micro_batch_size
    return job.task.stream.batch(step - 1, ranks.rank, ranks.world_size, micro)[0]


def _tokens(candidate: tuple[int, Batch]) -> int:
    return candidate[1].ids_BS.numel()


@contextlib.contextmanager
def memory_errors(job: Job, step: int) -> Iterator[None]:
    """Turn an error of running out of memory in step `step`, counted from 1, into a TrainingError that names the ways
    out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        micro = job.stage_of(step).run.train.micro_batch_size
        shorter = "data.sequence_length shorter, or model.execution.recompute.mode=full"
        if job.task.kind == "seq2seq":
            shorter = "data.max_source_tokens and data.max_target_tokens smaller"
        raise TrainingError(
            f"rank {rank()} ran out of memory ({str(error).partition('. ')[0] or 'MemoryError'}): make"
            f" train.micro_batch_size={micro} smaller (train.global_batch_size may stay),"
            f" {shorter}; or use more ranks, a higher ZeRO stage, or offloading (ds_configs/README.md)"
        ) from error
