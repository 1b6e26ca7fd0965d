"""The loop: a run in, trained weights out.

Read this first: open the run, join the ranks, build the engine, go on where the run left off, then step, evaluate, save
until the last step or a wish to stop. One plain loop and no callbacks, so the order in which things happen is the order
in which they are written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError, TrainingError
from megadec.common.log import logger
from megadec.data.batch import Batch
from megadec.data.prefetch import Prefetcher
from megadec.data.stream import TrainStream
from megadec.decoder.kernels.precision import has_bf16
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.load import load_checkpoint, roll_back
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.checkpoint.origins import origins_at_start
from megadec.engine.checkpoint.resume import find_checkpoint
from megadec.engine.checkpoint.save import begin_checkpoint
from megadec.engine.checkpoint.skipped import Start, after_start
from megadec.engine.early_stopping import after_evaluation, exhausted
from megadec.engine.health.damaged_shards import report_damaged_shards
from megadec.engine.health.guard import after_good_step, after_roll_back, after_skip, detect
from megadec.engine.health.preemption import Interrupt
from megadec.engine.health.recovery import describe, documents_read, line_of, within_limits
from megadec.engine.health.watchdog import Watchdog
from megadec.engine.metrics.device import peak_flops
from megadec.engine.metrics.logger import Metrics
from megadec.engine.metrics.reports import Anomaly, Saved, StepReport
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CommonRun, Job
from megadec.engine.schedule import learning_rate_factor
from megadec.engine.step import train_step
from megadec.engine.zero.engine import ZeroEngine, build_engine, end_process_group, start_process_group

log = logger(__name__)


@dataclass(frozen=True)
class _Opened:
    """What a run has open while it trains."""

    job: Job
    engine: ZeroEngine
    batches: Prefetcher
    metrics: Metrics
    saver: AsyncCheckpointer
    interrupt: Interrupt
    watch: Watchdog


def train(job: Job, interrupt: Interrupt | None = None, ranks: Ranks | None = None) -> None:
    """Train an opened run to its last step, or save and return when a signal asks to stop. Every rank calls this.

    interrupt: one that listens already, so that a signal while the run was opened is not lost. ranks: a process group
    that stands and goes on to stand. Raises MegadecError: CheckpointError, TrainingError, StorageError.
    """
    run = job.run
    with nullcontext(interrupt) if interrupt is not None else Interrupt() as listening:
        joined = ranks or start_process_group()
        listening.obey_file(run.folder)
        with Watchdog(run.guard.stall_seconds, run.folder, joined.rank, joined.world_size) as watch:
            begun = _begin(job, joined, listening, watch)
            if begun is None:
                log.info("stopped before the first step (%s); the same command begins again", listening.reason)
            else:
                job, engine, progress = begun
                _announce(job, progress)
                with (
                    _metrics(job, joined, progress) as metrics,
                    _batches(job, joined, progress.step) as batches,
                    AsyncCheckpointer(engine.zero_state(), engine.ranks, job.run.checkpoint) as saver,
                ):
                    ended = _loop(_Opened(job, engine, batches, metrics, saver, listening, watch), progress)
                log.info(_farewell(run, ended, listening))
        listening.obeyed()
        if ranks is None:
            end_process_group(joined)


def _begin(job: Job, ranks: Ranks, interrupt: Interrupt, watch: Watchdog) -> tuple[Job, ZeroEngine, Progress] | None:
    """Agree with the other ranks, build the engine, and go on where the run left off; None at a wish to stop."""
    check_one_precision(job, ranks)
    if job.task.agree is not None:
        job = replace(job, task=replace(job.task, stream=job.task.agree(ranks)))
    found = find_checkpoint(job, ranks)
    if _stops(ranks, interrupt):
        return None
    watch.set_phase("build", 0)
    engine = build_engine(job.task, job.run.optimizer, job.settings, ranks)
    begun = load_checkpoint(engine, job, *found) if found else Progress()
    begun = replace(begun, origins=origins_at_start(job, found))
    if isinstance(job.task.stream, TrainStream):
        if ranks.rank == 0:
            report_damaged_shards(job.task.stream, job.run.folder, begun.step)
        begun = replace(begun, starts=after_start(begun.starts, Start.of(job.task.stream, begun.step)))
    return job, engine, begun


def check_one_precision(job: Job, ranks: Ranks) -> None:
    """Raise ConfigError, on every rank, where `auto` is not the same on all of them. Collective."""
    found = ranks.all_gather(job.settings.precision)
    if len(set(found)) > 1:
        listed = ", ".join(f"{name} on rank {found.index(name)}" for name in sorted(set(found)))
        raise ConfigError(
            f"train.precision={job.run.train.precision} is {listed}: these machines differ; say"
            " --train.precision bf16, or fp32"
        )


def _stops(ranks: Ranks, interrupt: Interrupt) -> bool:
    """Whether any rank wants to stop. Collective."""
    return ranks.sum_over_ranks([float(interrupt.requested)])[0] > 0


def _loop(opened: _Opened, progress: Progress) -> Progress:
    """Evaluate when it is due, step, save when it is due; at the end or at a wish to stop, save what is not saved."""
    run, saver, watch = opened.job.run, opened.saver, opened.watch
    evaluator = opened.job.task.evaluator(opened.engine)
    saved_step = progress.step
    while not exhausted(run.early_stopping, progress.best):
        if _evaluation_due(opened.job, progress):
            watch.set_phase("evaluate", progress.step)
            evaluations = evaluator.evaluate(progress.step, opened.interrupt)
            if evaluations is None:
                break
            opened.metrics.record_evaluations(evaluations)
            best = after_evaluation(run.early_stopping, progress.best, progress.step, evaluations)
            gained = best.step != progress.best.step
            progress = replace(progress, evaluated_step=progress.step, best=best)
            if gained:
                _save(opened, progress, best=True)
                saved_step = progress.step
        if exhausted(run.early_stopping, progress.best) or progress.step >= run.train.last_step:
            break
        stepped = _step(opened, progress)
        if stepped is None:
            break
        progress = stepped
        _tell(opened, saver.poll())
        if run.checkpoint.interval_steps and progress.step % run.checkpoint.interval_steps == 0:
            watch.set_phase("save", progress.step)
            _save(opened, progress)
            saved_step = progress.step
    watch.set_phase("save", progress.step)
    if progress.step != saved_step:
        _save(opened, progress)
    _tell(opened, saver.wait())
    return progress


def _step(opened: _Opened, progress: Progress) -> Progress | None:
    """Train on the next batch, action what the guard finds, and record the step; None when a rank wants to stop."""
    job, engine, batches, metrics = opened.job, opened.engine, opened.batches, opened.metrics
    run, step = job.run, progress.step + 1
    began, waited = time.perf_counter(), batches.seconds_waited
    rate = run.optimizer.learning_rate * learning_rate_factor(run.schedule, progress.step, run.train.steps)
    _seed(run.seed, progress.step, engine.ranks.rank)
    opened.watch.set_phase("data", step)
    report = train_step(
        engine,
        next(batches),
        step=step,
        learning_rate=rate,
        wants_stop=opened.interrupt.requested,
        detect=partial(detect, run.guard, progress.guard),
        set_phase=opened.watch.set_phase,
    )
    if report is None:
        return None
    if report.anomaly is not None:
        progress = _recover(opened, progress, report, report.anomaly)
    if not report.updated:
        return progress
    guard = after_good_step(run.guard, progress.guard, report.loss, report.grad_norm)
    progress = replace(progress, step=step, tokens=progress.tokens + report.tokens, loss=report.loss, guard=guard)
    metrics.record_step(
        report,
        tokens=progress.tokens,
        seconds=time.perf_counter() - began,
        data_seconds=batches.seconds_waited - waited,
    )
    return progress


def _seed(seed: int, step: int, rank: int) -> None:
    """What a step draws depends on these three alone, so a run that was stopped draws what it would have drawn."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _evaluation_due(job: Job, progress: Progress) -> bool:
    """At the start, every so many steps, and at the end; never twice at one step."""
    every = job.task.evaluate_interval_steps
    if not every or progress.evaluated_step == progress.step:
        return False
    return progress.step % every == 0 or progress.step == job.run.train.steps


def _recover(opened: _Opened, progress: Progress, report: StepReport, anomaly: Anomaly) -> Progress:
    """Tell of what the guard found, and do what it asks for; the progress after it. Collective.

    Raises TrainingError when the run is to stop, or has no checkpoint to roll back to.
    """
    job, engine = opened.job, opened.engine
    _tell(opened, opened.saver.wait())  # a roll-back wants the newest checkpoint
    anomaly = within_limits(job.run.guard, progress.guard, anomaly)
    documents = documents_read(job.task.stream.documents, engine.ranks, anomaly)
    opened.metrics.record_anomaly(line_of(anomaly, report, documents))
    words = describe(anomaly, documents)
    if anomaly.action == "stop":
        raise TrainingError(f"{words}; data.skip_documents leaves documents out")
    if engine.ranks.rank == 0:
        log.warning(words)
    if anomaly.action == "skip":
        return replace(progress, step=report.step, guard=after_skip(progress.guard, report.step))
    if anomaly.action == "roll_back":
        saved = roll_back(engine, job, report.step)
        guard = after_roll_back(saved.guard, progress.guard, saved.step, report.step)
        return replace(progress, step=report.step, tokens=saved.tokens, loss=saved.loss, guard=guard)
    return progress


def _save(opened: _Opened, progress: Progress, *, best: bool = False) -> None:
    """Begin a checkpoint, after the one before it has its name. best: best.json is to name it."""
    _tell(opened, opened.saver.wait())
    _tell(opened, begin_checkpoint(opened.saver, opened.engine, opened.job, progress, best=best))


def _tell(opened: _Opened, saved: Saved | None) -> None:
    """Log, record and pass on a checkpoint that has its name."""
    if saved is None:
        return
    log.info("saved %s: training waited %.2f s, whole after %.2f s", saved.path, saved.stall_seconds, saved.seconds)
    opened.metrics.record_save(saved)
    if opened.job.saved is not None:
        opened.job.saved(saved)


def _batches(job: Job, ranks: Ranks, step: int) -> Prefetcher:
    train_options, prefetch = job.run.train, job.task.prefetch

    def make(number: int) -> Sequence[Batch]:
        return job.task.stream.batch(number, ranks.rank, ranks.world_size, train_options.micro_batch_size)

    return Prefetcher(
        make, step, train_options.last_step, ranks.device, depth=prefetch.prefetch_steps, workers=prefetch.workers
    )


def _metrics(job: Job, ranks: Ranks, begun: Progress) -> Metrics:
    run, peak = job.run, peak_flops(job.run.metrics, ranks.device)
    return Metrics(
        run.folder,
        run.metrics,
        resumed_step=begun.step,
        evaluated_step=begun.evaluated_step,
        steps=run.train.steps,
        flops=job.task.flops,
        ranks_peak_flops=None if peak is None else peak * ranks.world_size,
        config=to_dict(run),
    )


def _announce(job: Job, progress: Progress) -> None:
    run = job.run
    if job.settings.precision == "bf16" and not has_bf16():
        log.info(
            "train.precision=bf16: this machine has no bf16 instructions, so a step takes as long as in fp32 or up to a"
            " fifth longer, and only weights and activations are smaller; train.precision=auto takes fp32 here"
        )
    log.info(
        "%s: %s, %s parameters, ZeRO stage %d, %s, %d rank(s), %d rows a step, %s rows an epoch; step %d of %d",
        run.name,
        job.task.kind.replace("_", " "),
        f"{sum(math.prod(size) for size in job.task.sizes.values()):,}",
        job.settings.stage,
        job.settings.precision + _why(job),
        job.ranks,
        run.train.global_batch_size,
        f"{job.task.stream.windows_per_epoch:,}",
        progress.step,
        run.train.steps,
    )


def _why(job: Job) -> str:
    """Why the precision was chosen, where the run left it open."""
    if job.run.train.precision == "auto":
        has = "has" if job.settings.precision == "bf16" else "has no"
        return f" (auto: this {'GPU' if torch.cuda.is_available() else 'CPU'} {has} bf16 instructions)"
    return ""


def _farewell(run: CommonRun, progress: Progress, interrupt: Interrupt) -> str:
    if exhausted(run.early_stopping, progress.best):
        best = progress.best
        return (
            f"stopped early at step {progress.step}: {run.early_stopping.metric} was best at step {best.step}"
            f" ({best.value}) and did not get better in {best.waited} evaluations"
        )
    if progress.step < run.train.last_step:
        return f"stopped at step {progress.step} ({interrupt.reason}); the same command goes on from there"
    return f"done: step {progress.step}, {progress.tokens:,} tokens, loss {progress.loss}"
