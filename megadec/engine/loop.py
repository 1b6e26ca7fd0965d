"""The loop: a run in, trained weights out.

Read this first: build the engine, go on where the run left off, then evaluate, step and save until the last step or a
wish to stop. One plain loop and no callbacks: things happen in the order in which they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from megadec.common.log import logger
from megadec.data.prefetch import Prefetcher
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.health.preemption import Interrupt
from megadec.engine.health.watchdog import Watchdog
from megadec.engine.metrics.logger import MetricsLogger
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine

log = logger(__name__)


@dataclass(frozen=True)
class _Training:
    """What a run has open while it trains."""

    job: Job
    engine: ZeroEngine
    batches: Prefetcher
    metrics: MetricsLogger
    checkpointer: AsyncCheckpointer
    interrupt: Interrupt
    watchdog: Watchdog


def train(job: Job, interrupt: Interrupt, ranks: Ranks) -> None:
    """Train an opened run to its last step, or save and return when a rank is asked to stop. Collective.

    Raises MegadecError: CheckpointError, TrainingError, StorageError.
    """
    run = job.run
    interrupt.watch_stop_file(run.folder)
    with Watchdog(run.guard.stall_seconds, run.folder, ranks.rank, ranks.world_size) as watchdog:
        begun = _begin(job, ranks, interrupt, watchdog)
        if begun is None:
            log.info("stopped before the first step (%s); the same command begins again", interrupt.reason)
        else:
            job, engine, progress = begun
            _announce(job, progress)
            with (
                _metrics(job, ranks, progress) as metrics,
                _batches(job, ranks, progress.step) as batches,
                AsyncCheckpointer(engine.zero_state(), ranks, run.checkpoint) as checkpointer,
            ):
                training = _Training(job, engine, batches, metrics, checkpointer, interrupt, watchdog)
                progress = _loop(training, progress)
            log.info(_final_message(run, progress, interrupt))
    interrupt.remove_stop_file()


def _begin(job: Job, ranks: Ranks, interrupt: Interrupt, watchdog: Watchdog) -> tuple[Job, ZeroEngine, Progress] | None:
    """Agree with the other ranks, build the engine, and go on where the run left off; None at a wish to stop."""
    check_one_precision(job, ranks)
    if job.task.agree is not None:
        job = replace(job, task=replace(job.task, stream=job.task.agree(ranks)))
    done = (
        f"done: step {progress.step}, {progress.tokens:,} tokens, loss {progress.loss}; checkpoints: {run.checkpoints}"
    )
    if best.value is None:
        return done
    return f"{done}; {run.early_stopping.metric} was best at step {best.step}: {best.value}"
