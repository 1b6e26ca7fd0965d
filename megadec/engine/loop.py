"""The loop: a run in, trained weights out.

Read this first: build the engine, go on where the run left off, then evaluate, step and save until the last step or a
wish to stop. One plain loop and no callbacks: things happen in the order in which they are written.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError, TrainingError
from megadec.common.log import logger
from megadec.data.batch import Batch
from megadec.data.prefetch import Prefetcher
from megadec.data.stages import StagedStream
from megadec.engine.banner import announce
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.load import load_checkpoint, roll_back
from megadec.engine.checkpoint.manifest import Progress, checkpoint_name
from megadec.engine.checkpoint.origins import origins_at_start
from megadec.engine.checkpoint.resume import find_checkpoint
from megadec.engine.checkpoint.save import begin_checkpoint
from megadec.engine.checkpoint.skipped import RunStart, after_start
from megadec.engine.course import enter_stage
from megadec.engine.dry_run import dry_run, memory_errors
from megadec.engine.early_stopping import after_evaluation, should_stop
from megadec.engine.health.damaged_shards import report_damaged_shards
from megadec.engine.health.guard import (
    after_good_step,
    after_roll_back,
    after_skip,
    describe,
    documents_read,
    line_of,
    within_limits,
)
from megadec.engine.health.owner import owned
from megadec.engine.health.preemption import Interrupt
from megadec.engine.health.watchdog import Watchdog
from megadec.engine.metrics.logger import MetricsLogger
from megadec.engine.metrics.reports import Anomaly, Saved, StepReport
from megadec.engine.profiling import profiled
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job
from megadec.engine.step import train_step
from megadec.engine.zero.engine import ZeroEngine, build_engine

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
    with (
        owned(run.folder, ranks),
        Watchdog(run.guard.stall_seconds, run.folder, ranks.rank, ranks.world_size) as watchdog,
        watchdog.naming_lost_ranks(),
    ):
        begun = _begin(job, ranks, interrupt, watchdog)
        if begun is None:
            log.info("stopped before the first step (%s); the same command begins again", interrupt.reason)
        else:
            job, engine, progress = begun
            announce(job, ranks, progress)
            with (
                _metrics(job, ranks, progress) as metrics,
                _batches(job, ranks, progress.step) as batches,
                AsyncCheckpointer(engine.zero_state(), ranks, run.checkpoint) as checkpointer,
            ):
                training = _Training(job, engine, batches, metrics, checkpointer, interrupt, watchdog)
                progress = _loop(training, progress)
            log.info(_final_message(job, progress, interrupt))
    interrupt.remove_stop_file()


def _begin(job: Job, ranks: Ranks, interrupt: Interrupt, watchdog: Watchdog) -> tuple[Job, ZeroEngine, Progress] | None:
    """Agree with the other ranks, build the engine, and go on where the run left off; None at a wish to stop."""
    check_one_precision(job, ranks)
    if job.task.agree_on_data is not None:
        job = replace(job, task=replace(job.task, stream=job.task.agree_on_data(ranks)))
    found = find_checkpoint(job, ranks)
    [stops] = ranks.sum_over_ranks([float(interrupt.requested)])
    if stops:
        return None
    watchdog.set_phase("build", 0)
    engine = build_engine(job.task, job.run.optimizer, job.settings, ranks)
    progress = load_checkpoint(engine, job, *found) if found else Progress()
    progress = replace(progress, origins=origins_at_start(job, found))
    if isinstance(job.task.stream, StagedStream):
        if ranks.rank == 0:
            report_damaged_shards(job.task.stream, job.run.folder, progress.step)
        progress = replace(progress, starts=after_start(progress.starts, RunStart.of(job.task.stream, progress.step)))
    if job.run.train.dry_run and progress.step < job.last_step:
        watchdog.set_phase("dry run", progress.step + 1)
        dry_run(engine, job, progress.step)
    return job, engine, progress


def check_one_precision(job: Job, ranks: Ranks) -> None:
    """Raise ConfigError, on every rank, where `auto` is not the same on all of them. Collective."""
    found = ranks.all_gather(job.settings.precision)
    if len(set(found)) > 1:
        listed = ", ".join(f"{name} on rank {found.index(name)}" for name in sorted(set(found)))
        raise ConfigError(f"train.precision={job.run.train.precision} is {listed}: machines differ, so say which")


def _loop(training: _Training, progress: Progress) -> Progress:
    """Evaluate when it is due, step, save when it is due; at the end or at a wish to stop, save what is not saved."""
    run, watchdog, saved_step = training.job.run, training.watchdog, progress.step
    if progress.step and not (run.checkpoints / checkpoint_name(progress.step)).is_dir():
        saved_step = -1  # it went on from another run's checkpoint
    while True:
        evaluated = _evaluate(training, progress)
        if evaluated is None:
            break
        if evaluated.best.step != progress.best.step:
            _save(training, evaluated, best=True)
            saved_step = evaluated.step
        progress = evaluated
        if should_stop(run.early_stopping, progress.best) or progress.step >= training.job.last_step:
            break
        stepped = _step(training, progress)
        if stepped is None:
            break
        progress = stepped
        _report_saved(training, training.checkpointer.poll())
        if run.checkpoint.interval_steps and progress.step % run.checkpoint.interval_steps == 0:
            watchdog.set_phase("save", progress.step)
            _save(training, progress)
            saved_step = progress.step
    watchdog.set_phase("save", progress.step)
    if progress.step != saved_step:
        _save(training, progress)
    _report_saved(training, training.checkpointer.wait())
    return progress


def _evaluate(training: _Training, progress: Progress) -> Progress | None:
    """Measure the held-out sets at the start, every so many steps, and at the end, never twice at one step; the
    progress with what is best now, None when a rank wants to stop.
    """
    task, step, every = training.job.task, progress.step, training.job.task.evaluate_interval_steps
    due = bool(every) and (step % every == 0 or step == training.job.steps)
    if not due or task.evaluate is None or progress.evaluated_step == step:
        return progress
    training.watchdog.set_phase("evaluate", step)
    evaluations = task.evaluate(training.engine, step, training.interrupt)
    if evaluations is None:
        return None
    samples = task.write_samples(training.engine, step, training.interrupt) if task.write_samples else []
    if samples is None:
        return None
    training.metrics.record_evaluations(evaluations)
    training.metrics.record_samples(samples)
    if evaluations:
        log.info("evaluated step %d: %s", step, "; ".join(map(str, evaluations)))
    for sample in samples:
        log.info("step %d writes: [%s]%s", step, sample.prompt, sample.text)
    best = after_evaluation(training.job.run.early_stopping, progress.best, step, evaluations)
    return replace(progress, evaluated_step=step, best=best)


def _step(training: _Training, progress: Progress) -> Progress | None:
    """Train on the next batch, do what the guard asks for, and record the step; None when a rank wants to stop."""
    job, engine, batches = training.job, training.engine, training.batches
    run = job.run
    step, began, waited = progress.step + 1, time.perf_counter(), batches.seconds_waited
    _seed(run.seed, progress.step, engine.ranks.rank)
    training.watchdog.set_phase("data", step)
    enter_stage(engine, job, step)
    with memory_errors(job, step), profiled(run, step, engine.ranks):
        report = train_step(
            engine,
            next(batches),
            step=step,
            learning_rate=job.stage_of(step).learning_rate(step),
            wants_stop=training.interrupt.requested,
            guard=run.guard,
            history=progress.guard,
            set_phase=training.watchdog.set_phase,
        )
    if report is None:
        return None
    if report.anomaly is not None:
        progress = _recover(training, progress, report, report.anomaly)
    if not report.updated:
        return progress
    guard = after_good_step(run.guard, progress.guard, report.loss, report.grad_norm)
    progress = replace(progress, step=step, tokens=progress.tokens + report.tokens, loss=report.loss, guard=guard)
    seconds, data_seconds = time.perf_counter() - began, batches.seconds_waited - waited
    stage = job.stage_of(step).name if job.changes else None
    training.metrics.record_step(
        report, stage=stage, tokens=progress.tokens, seconds=seconds, data_seconds=data_seconds
    )
    return progress


def _seed(seed: int, step: int, rank: int) -> None:
    """What a step draws depends on these three alone, so a run that was stopped draws what it would have drawn."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _recover(training: _Training, progress: Progress, report: StepReport, anomaly: Anomaly) -> Progress:
    """Tell of what the guard found, and do what it asks for; the progress after it. Collective.

    Raises TrainingError when the run is to stop, or has no checkpoint to roll back to.
    """
    job, engine, step = training.job, training.engine, report.step
    _report_saved(training, training.checkpointer.wait())  # a roll-back wants the newest checkpoint
    anomaly = within_limits(job.run.guard, progress.guard, anomaly)
    documents = documents_read(job.task.stream.documents, engine.ranks, anomaly)
    training.metrics.record_anomaly(line_of(anomaly, report, documents))
    words = describe(anomaly, documents)
    if anomaly.action == "stop":
        raise TrainingError(f"{words}; data.skip_documents leaves documents out")
    if engine.ranks.rank == 0:
        log.warning(words)
    if anomaly.action == "skip":
        return replace(progress, step=step, guard=after_skip(progress.guard, step))
    if anomaly.action == "roll_back":
        saved = roll_back(engine, job, step)
        guard = after_roll_back(saved.guard, progress.guard, saved.step, step)
        return replace(progress, step=step, tokens=saved.tokens, loss=saved.loss, guard=guard)
    return progress


def _save(training: _Training, progress: Progress, *, best: bool = False) -> None:
    """Begin a checkpoint, once the one before it is finished. best: best.json names it."""
    _report_saved(training, training.checkpointer.wait())
    _report_saved(training, begin_checkpoint(training.checkpointer, training.engine, training.job, progress, best=best))


def _report_saved(training: _Training, saved: Saved | None) -> None:
    """Log, record and pass on a finished checkpoint."""
    if saved is None:
        return
    log.info("saved %s: training waited %.2f s, whole after %.2f s", saved.path, saved.stall_seconds, saved.seconds)
    training.metrics.record_save(saved)
    if training.job.on_saved is not None:
        training.job.on_saved(saved)


def _batches(job: Job, ranks: Ranks, step: int) -> Prefetcher:
    task = job.task

    def make(step: int) -> Sequence[Batch]:
        micro = job.stage_of(step + 1).run.train.micro_batch_size
        return task.stream.batch(step, ranks.rank, ranks.world_size, micro)

    return Prefetcher(make, step, job.last_step, ranks.device, task.prefetch_steps, task.workers)


def _metrics(job: Job, ranks: Ranks, progress: Progress) -> MetricsLogger:
    return MetricsLogger(
        job.run.folder,
        job.run.metrics,
        ranks,
        resumed_step=progress.step,
        evaluated_step=progress.evaluated_step,
        steps=job.steps,
        flops=job.task.flops,
        config=to_dict(job.run),
    )


def _final_message(job: Job, progress: Progress, interrupt: Interrupt) -> str:
    run, best, found = job.run, progress.best, ""
    if best.value is not None:
        where = run.checkpoints / checkpoint_name(best.step)
        found = f"; {run.early_stopping.metric} was best at step {best.step}: {best.value:.4f} ({where})"
    if should_stop(run.early_stopping, best):
        return f"stopped early at step {progress.step}{found}; not better in {best.waited} evaluations since"
    if progress.step < job.last_step:
        return f"stopped at step {progress.step} ({interrupt.reason}); the same command goes on from there"
    loss = "" if progress.loss is None else f", loss {progress.loss:.4f}"
    how = "done" if progress.step >= job.steps else "stopped as train.stop_at_step says"
    return f"{how}: step {progress.step}, {progress.tokens:,} tokens{loss}; saved in {run.checkpoints}{found}"
