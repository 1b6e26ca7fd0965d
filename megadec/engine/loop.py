"""The loop: a run in, trained weights out.

Read this first: open the run, join the ranks, build the engine, go on where the run left off, then step, evaluate, save
until the last step or a wish to stop. Trade-off: one plain loop and no callbacks, so the order in which things happen
is the order in which they are written.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from megadec.common.log import logger
from megadec.data.batch import TokenBatch
from megadec.data.prefetch import Prefetcher
from megadec.decoder.flops import parameter_count
from megadec.engine.checkpoint import Progress, load_checkpoint, save_checkpoint
from megadec.engine.evaluate import Evaluator
from megadec.engine.interrupt import Interrupt
from megadec.engine.metrics import Metrics, peak_flops
from megadec.engine.resume import contents_of, find_checkpoint
from megadec.engine.run import Job, Run, open_run
from megadec.engine.schedule import learning_rate_factor
from megadec.engine.step import train_step
from megadec.engine.zero import Ranks, ZeroEngine, build_engine, end_process_group, start_process_group

log = logger(__name__)


def train(run: Run, deepspeed_file: Path) -> None:
    """Train `run` to its last step, or save and return when a signal asks to stop.

    Every rank calls this. Raises MegadecError: of the request before anything costs, of training and storage later.
    """
    job = open_run(run, deepspeed_file)
    with Interrupt() as interrupt:
        ranks = start_process_group()
        train_job(job, ranks, interrupt)
        end_process_group(ranks)


def train_job(job: Job, ranks: Ranks, interrupt: Interrupt) -> None:
    """Train an opened run in a process group that stands. Collective.

    Raises CheckpointError, TrainingError, StorageError.
    """
    run = job.run
    found = find_checkpoint(job, ranks)
    engine = build_engine(job.shape, run.model.recompute, run.optimizer, job.settings, seed=run.seed, ranks=ranks)
    begun = load_checkpoint(engine, *found) if found else Progress()
    _announce(job, begun)
    with _metrics(job, ranks, begun) as metrics, _batches(job, ranks, begun.step) as batches:
        ended = _loop(job, engine, batches, metrics, interrupt, begun)
    log.info(_farewell(run, ended, interrupt))


def _loop(
    job: Job, engine: ZeroEngine, batches: Prefetcher, metrics: Metrics, interrupt: Interrupt, progress: Progress
) -> Progress:
    """Evaluate when it is due, step, save when it is due; at the end or at a wish to stop, save what is not saved."""
    run = job.run
    evaluator = Evaluator(job.held_out, run.evaluate, run.data.row_tokens, job.tokenizer, engine)
    saved_step = progress.step
    while True:
        if _evaluation_due(run, progress):
            evaluations = evaluator.evaluate(progress.step, interrupt)
            if evaluations is None:
                break
            metrics.record_evaluations(evaluations)
            progress = replace(progress, evaluated_step=progress.step)
        if progress.step >= run.train.last_step:
            break
        began, waited = time.perf_counter(), batches.seconds_waited
        rate = run.optimizer.learning_rate * learning_rate_factor(run.schedule, progress.step, run.train.steps)
        report = train_step(
            engine, next(batches), step=progress.step + 1, learning_rate=rate, wants_stop=interrupt.requested
        )
        if report is None:
            break
        progress = replace(progress, step=report.step, tokens=progress.tokens + report.tokens, loss=report.loss)
        metrics.record_step(
            report,
            tokens=progress.tokens,
            seconds=time.perf_counter() - began,
            seconds_waiting_for_data=batches.seconds_waited - waited,
        )
        if run.checkpoint.every_steps and progress.step % run.checkpoint.every_steps == 0:
            _save(job, engine, progress)
            saved_step = progress.step
    if progress.step != saved_step:
        _save(job, engine, progress)
    return progress


def _evaluation_due(run: Run, progress: Progress) -> bool:
    """At the start, every so many steps, and at the end; never twice at one step."""
    due = progress.step % run.evaluate.every_steps == 0 or progress.step == run.train.steps
    return bool(run.evaluate.sets) and due and progress.evaluated_step != progress.step


def _save(job: Job, engine: ZeroEngine, progress: Progress) -> None:
    run, state = job.run, job.stream.state(progress.step)
    save_checkpoint(engine, run.checkpoints, contents_of(job), progress, state, run.checkpoint.keep_last)


def _batches(job: Job, ranks: Ranks, step: int) -> Prefetcher:
    train_options = job.run.train

    def make(number: int) -> list[TokenBatch]:
        return job.stream.batch(number, ranks.rank, ranks.world_size, train_options.micro_sequences)

    return Prefetcher(make, step, train_options.last_step, ranks.device)


def _metrics(job: Job, ranks: Ranks, begun: Progress) -> Metrics:
    run, peak = job.run, peak_flops(job.run.metrics, ranks.device)
    return Metrics(
        run.folder,
        run.metrics,
        resumed_step=begun.step,
        evaluated_step=begun.evaluated_step,
        steps=run.train.steps,
        shape=job.shape,
        ranks_peak_flops=None if peak is None else peak * ranks.world_size,
    )


def _announce(job: Job, progress: Progress) -> None:
    run = job.run
    log.info(
        "%s: %s parameters, ZeRO stage %d, %s, %d rank(s), %d x %d tokens a step, %s windows an epoch; step %d of %d",
        run.name,
        f"{parameter_count(job.shape):,}",
        job.settings.stage,
        run.train.precision,
        job.ranks,
        run.train.sequences_per_step,
        run.data.row_tokens,
        f"{job.stream.windows_per_epoch:,}",
        progress.step,
        run.train.steps,
    )


def _farewell(run: Run, progress: Progress, interrupt: Interrupt) -> str:
    if progress.step < run.train.last_step:
        return f"stopped at step {progress.step} ({interrupt.reason}); the same command goes on from there"
    return f"done: step {progress.step}, {progress.tokens:,} tokens, loss {progress.loss}"
