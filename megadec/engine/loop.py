"""The loop: a run in, trained weights out.

Read this first: open the run, join the ranks, build the engine, go on where the run left off, then step, evaluate, save
until the last step or a wish to stop. Trade-off: one plain loop and no callbacks, so the order in which things happen
is the order in which they are written.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError
from megadec.common.log import logger
from megadec.data.batch import Batch
from megadec.data.prefetch import Prefetcher
from megadec.data.stream import TrainStream
from megadec.decoder.kernels.precision import has_bf16
from megadec.engine.checkpoint.checkpointer import Saved, Saver
from megadec.engine.checkpoint.load import load_checkpoint
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.checkpoint.origins import origins_at_start
from megadec.engine.checkpoint.resume import contents_of, find_checkpoint
from megadec.engine.checkpoint.save import begin_checkpoint
from megadec.engine.checkpoint.skipped import Start, after_start
from megadec.engine.checkpoint.verify import probe
from megadec.engine.early_stopping import after_evaluation, exhausted, write_best
from megadec.engine.health.damaged_shards import agree_on_data, report_left_out
from megadec.engine.health.guard import after_good_step, judge
from megadec.engine.health.preemption import Interrupt
from megadec.engine.health.recovery import answer
from megadec.engine.health.watchdog import StallWatch
from megadec.engine.metrics.logger import Metrics, peak_flops
from megadec.engine.runs.common import CommonRun, Job
from megadec.engine.runs.pretrain import Run, open_run
from megadec.engine.schedule import learning_rate_factor
from megadec.engine.step import train_step
from megadec.engine.task import InitialWeights
from megadec.engine.zero.engine import Ranks, ZeroEngine, build_engine, end_process_group, start_process_group

log = logger(__name__)


@dataclass(frozen=True)
class _Opened:
    """What a run has open while it trains."""

    job: Job
    engine: ZeroEngine
    batches: Prefetcher
    metrics: Metrics
    saver: Saver
    interrupt: Interrupt
    watch: StallWatch


def train(run: Run, deepspeed_file: Path, initial: InitialWeights | None = None) -> None:
    """Pretrain `run` to its last step, or save and return when a signal asks to stop.

    Every rank calls this. initial: the opened model of run.model.initial. Raises MegadecError: of the request before
    anything costs, of training and storage later.
    """
    train_opened(open_run(run, deepspeed_file, initial))


def train_opened(job: Job, interrupt: Interrupt | None = None) -> None:
    """Join the other ranks, train any opened run, and leave. Every rank calls this. Raises MegadecError.

    interrupt: one that listens already, so that a signal while the run was opened is not lost.
    """
    with nullcontext(interrupt) if interrupt is not None else Interrupt() as listening:
        ranks = start_process_group()
        train_job(job, ranks, listening)
        end_process_group(ranks)


def train_job(job: Job, ranks: Ranks, interrupt: Interrupt) -> None:
    """Train an opened run in a process group that stands. Collective.

    Raises CheckpointError, TrainingError, StorageError.
    """
    run = job.run
    interrupt.obey_file(run.folder)
    with StallWatch(run.guard.stall_seconds, run.folder, ranks.rank, ranks.world_size) as watch:
        check_one_precision(job, ranks)
        job = agree_on_data(job, ranks)
        found = find_checkpoint(job, ranks)
        if _stops(ranks, interrupt):
            log.info("stopped before the first step (%s); the same command begins again", interrupt.reason)
            interrupt.obeyed()
            return
        watch.at("build", 0)
        engine = build_engine(job.task, run.optimizer, job.settings, ranks)
        begun = load_checkpoint(engine, job, *found) if found else Progress()
        begun = replace(begun, origins=origins_at_start(job, found))
        report_left_out(job, ranks, begun.step)
        if isinstance(job.task.stream, TrainStream):
            begun = replace(begun, starts=after_start(begun.starts, Start.of(job.task.stream, begun.step)))
        _announce(job, begun)
        with (
            _metrics(job, ranks, begun) as metrics,
            _batches(job, ranks, begun.step) as batches,
            _saver(job, engine) as saver,
        ):
            ended = _loop(_Opened(job, engine, batches, metrics, saver, interrupt, watch), begun)
    log.info(_farewell(run, ended, interrupt))
    interrupt.obeyed()


def check_one_precision(job: Job, ranks: Ranks) -> None:
    """Raise ConfigError, on every rank, where `auto` is not the same on all of them. Collective."""
    found = ranks.from_all(job.settings.precision)
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
            watch.at("evaluate", progress.step)
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
        saver.poll()
        if run.checkpoint.every_steps and progress.step % run.checkpoint.every_steps == 0:
            watch.at("save", progress.step)
            _save(opened, progress)
            saved_step = progress.step
    watch.at("save", progress.step)
    if progress.step != saved_step:
        _save(opened, progress)
    saver.wait()
    return progress


def _step(opened: _Opened, progress: Progress) -> Progress | None:
    """Train on the next batch, answer what the guard finds, and record the step; None when a rank wants to stop."""
    job, engine, batches, metrics = opened.job, opened.engine, opened.batches, opened.metrics
    run, step = job.run, progress.step + 1
    began, waited = time.perf_counter(), batches.seconds_waited
    rate = run.optimizer.learning_rate * learning_rate_factor(run.schedule, progress.step, run.train.steps)
    _seed(run.seed, progress.step, engine.ranks.rank)
    opened.watch.at("data", step)
    report = train_step(
        engine,
        next(batches),
        step=step,
        learning_rate=rate,
        wants_stop=opened.interrupt.requested,
        judge=partial(judge, run.guard, progress.guard),
        at=opened.watch.at,
    )
    if report is None:
        return None
    if report.finding is not None:
        opened.saver.wait()  # a roll-back wants the newest checkpoint
        progress = answer(job, engine, metrics, progress, report)
    if not report.updated:
        return progress
    guard = after_good_step(run.guard, progress.guard, report.loss, report.grad_norm)
    progress = replace(progress, step=step, tokens=progress.tokens + report.tokens, loss=report.loss, guard=guard)
    metrics.record_step(
        report,
        tokens=progress.tokens,
        seconds=time.perf_counter() - began,
        seconds_waiting_for_data=batches.seconds_waited - waited,
    )
    return progress


def _seed(seed: int, step: int, rank: int) -> None:
    """What a step draws depends on these three alone, so a run that was stopped draws what it would have drawn."""
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def _evaluation_due(job: Job, progress: Progress) -> bool:
    """At the start, every so many steps, and at the end; never twice at one step."""
    every = job.task.evaluate_every_steps
    if not every or progress.evaluated_step == progress.step:
        return False
    return progress.step % every == 0 or progress.step == job.run.train.steps


def _save(opened: _Opened, progress: Progress, *, best: bool = False) -> None:
    """Begin a checkpoint; when it has its name: the file that names the best, the record, and whoever wants to know."""
    job, run = opened.job, opened.job.run

    def named() -> None:
        if best:  # now: what best.json names is there
            write_best(run.folder, run.early_stopping, progress.best)

    def saved(done: Saved) -> None:
        log.info("saved %s: training waited %.2f s, whole after %.2f s", done.path, done.stall_seconds, done.seconds)
        opened.metrics.record_save(done)
        if job.saved is not None:
            job.saved(done.path, progress)

    begin_checkpoint(
        opened.saver,
        run.checkpoints,
        contents_of(job),
        progress,
        job.task.stream.state(progress.step),
        measure=lambda: probe(opened.engine, job, progress.step),
        named=named,
        saved=saved,
    )


def _saver(job: Job, engine: ZeroEngine) -> Saver:
    options = job.run.checkpoint
    return Saver(
        engine.live_state(),
        engine.ranks,
        asynchronous=options.asynchronous,
        snapshot_bytes=options.snapshot_bytes,
        retries=options.retries,
        pause_seconds=options.retry_pause_seconds,
    )


def _batches(job: Job, ranks: Ranks, step: int) -> Prefetcher:
    train_options, prefetch = job.run.train, job.task.prefetch

    def make(number: int) -> Sequence[Batch]:
        return job.task.stream.batch(number, ranks.rank, ranks.world_size, train_options.micro_sequences)

    return Prefetcher(
        make, step, train_options.last_step, ranks.device, depth=prefetch.steps_ahead, workers=prefetch.workers
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
        run.train.sequences_per_step,
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
