"""The loop: a run in, trained weights out.

Read this first: open the run, join the ranks, build the engine, go on where the run left off, then step, evaluate, save
until the last step or a wish to stop. Trade-off: one plain loop and no callbacks, so the order in which things happen
is the order in which they are written.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.common.errors import CheckpointError, MegadecError
from megadec.common.files import storage_errors
from megadec.common.log import logger
from megadec.data.prefetch import Prefetcher
from megadec.decoder.flops import parameter_count
from megadec.engine.checkpoint import (
    Contents,
    Progress,
    check_fits,
    checkpoints_in,
    load_checkpoint,
    newest_whole,
    read_manifest,
    remove_partial,
    save_checkpoint,
)
from megadec.engine.evaluate import Evaluator
from megadec.engine.interrupt import Interrupt
from megadec.engine.metrics import Metrics, peak_flops
from megadec.engine.run import Job, Run, check_same_run, open_run
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
        try:
            train_job(job, ranks, interrupt)
        finally:
            end_process_group()


def train_job(job: Job, ranks: Ranks, interrupt: Interrupt) -> None:
    """Train an opened run in a process group that stands. Collective.

    Raises CheckpointError, TrainingError, StorageError.
    """
    run, stream = job.run, job.stream
    found = _find_checkpoint(job, ranks)
    engine = build_engine(job.shape, run.model.recompute, run.optimizer, job.settings, seed=run.seed, ranks=ranks)
    progress = load_checkpoint(engine, *found) if found else Progress()
    _announce(job, progress)

    def save() -> None:
        state = stream.state(progress.step)
        save_checkpoint(engine, run.checkpoints, _contents(job), progress, state, run.checkpoint.keep_last)

    evaluator = Evaluator(job.held_out, run.evaluate, run.data.row_tokens, job.tokenizer, engine)
    saved_step, last_step = progress.step, run.train.last_step
    with (
        Metrics(
            run.folder,
            run.metrics,
            resumed_step=progress.step,
            evaluated_step=progress.evaluated_step,
            steps=run.train.steps,
            shape=job.shape,
            ranks_peak_flops=_ranks_peak_flops(job, ranks),
        ) as metrics,
        _batches(job, engine, progress.step) as batches,
    ):
        while True:
            if _evaluation_due(run, progress):
                evaluations = evaluator.evaluate(progress.step, interrupt)
                if evaluations is None:
                    break
                metrics.record_evaluations(evaluations)
                progress = replace(progress, evaluated_step=progress.step)
            if progress.step >= last_step:
                break
            began, waited = time.perf_counter(), batches.seconds_waited
            report = train_step(
                engine,
                next(batches),
                step=progress.step + 1,
                learning_rate=run.optimizer.learning_rate
                * learning_rate_factor(run.schedule, progress.step, run.train.steps),
                wants_stop=interrupt.requested,
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
                save()
                saved_step = progress.step
        if progress.step != saved_step:
            save()
    log.info(_farewell(run, progress, interrupt))


def _evaluation_due(run: Run, progress: Progress) -> bool:
    """At the start, every so many steps, and at the end; never twice at one step."""
    due = progress.step % run.evaluate.every_steps == 0 or progress.step == run.train.steps
    return bool(run.evaluate.sets) and due and progress.evaluated_step != progress.step


def _batches(job: Job, engine: ZeroEngine, step: int) -> Prefetcher:
    ranks, train_options = engine.ranks, job.run.train

    def make(number: int) -> Any:
        return job.stream.batch(number, ranks.rank, ranks.world_size, train_options.micro_sequences)

    return Prefetcher(make, step, train_options.last_step, ranks.device)


def _find_checkpoint(job: Job, ranks: Ranks) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from and its manifest, chosen and checked by rank 0; an error reaches every rank."""
    found: tuple[Path, dict[str, Any]] | MegadecError | None = None
    if ranks.rank == 0:
        try:
            found = _choose_checkpoint(job)
        except MegadecError as error:
            found = error
    found = ranks.from_first(found)
    if isinstance(found, MegadecError):
        raise found
    return found


def _choose_checkpoint(job: Job) -> tuple[Path, dict[str, Any]] | None:
    run = job.run
    with storage_errors(run.checkpoints):
        run.checkpoints.mkdir(parents=True, exist_ok=True)
        remove_partial(run.checkpoints)
    named = run.checkpoint.resume not in ("auto", "none")
    path = Path(run.checkpoint.resume) if named else newest_whole(run.checkpoints)
    if path is None:
        return None
    manifest = read_manifest(path)
    check_same_run(path, manifest["run"], to_dict(run), named=named)
    check_fits(path, manifest, _contents(job))
    job.stream.check(manifest["data"])
    newer = [p for p in checkpoints_in(run.checkpoints) if p.name > path.name]
    if newer:
        raise CheckpointError(
            f"checkpoint.resume={path}, but {newer[-1]} is newer: remove what you go back behind, or say"
            " checkpoint.resume=auto"
        )
    return path, manifest


def _contents(job: Job) -> Contents:
    return Contents(job.run, job.shape, job.tokenizer, job.settings, job.ranks)


def _ranks_peak_flops(job: Job, ranks: Ranks) -> float | None:
    peak = peak_flops(job.run.metrics, ranks.device)
    return None if peak is None else peak * ranks.world_size


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
