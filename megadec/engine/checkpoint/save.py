"""Saves a step: writes beside the state what a checkpoint says of itself, and gives it its name last.

The way of a save: `begin_checkpoint` measures the loss and gathers what the manifest says; `AsyncCheckpointer.start`
(checkpointer.py) copies the state; `PendingSave` (writer.py) writes each rank's files in a thread; when those of all
ranks are there, rank 0 calls `publish`, which writes the manifest and gives the name. Rank 0 alone completes a
checkpoint, so one process answers for it.
"""

import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import megadec
from megadec.common.config import to_dict, to_yaml
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.manifest import RUN_FILE, Progress, checkpoint_name, finalize, remove_old
from megadec.engine.checkpoint.rng_state import random_file, random_state
from megadec.engine.checkpoint.verify import measure_loss
from megadec.engine.checkpoint.writer import write_small
from megadec.engine.early_stopping import write_best
from megadec.engine.metrics.reports import Saved
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine
from megadec.engine.zero.state_files import Sums


def begin_checkpoint(
    checkpointer: AsyncCheckpointer, engine: ZeroEngine, job: Job, progress: Progress, *, best: bool = False
) -> Saved | None:
    """Begin to save step_N as the state is now; training may go on when this returns. No other save is under way.

    Returns the checkpoint where it is already whole, as `AsyncCheckpointer.start` does. best: best.json names this step
    as soon as the checkpoint has its name, before older ones go. Collective.
    """
    began = time.perf_counter()
    manifest = _manifest(engine, job, progress)

    def publish(partial: Path, final: Path, files: dict[str, Any], sums: Sums) -> None:
        if partial.exists():  # not so when what comes after the name is tried again
            small = {RUN_FILE: to_yaml(job.run).encode(), **job.tokenizer.carried_files()}
            files |= {name: write_small(partial / name, content) for name, content in small.items()}
            bits = {name: {part: f"{value:016x}" for part, value in of.items()} for name, of in sorted(sums.items())}
            finalize(partial, final, manifest | {"files": dict(sorted(files.items())), "bit_sums": bits})
        if best:
            write_best(job.run.folder, job.run.early_stopping, progress.best)
        remove_old(final.parent, job.run.checkpoint, progress.best.step)

    final = job.run.checkpoints / checkpoint_name(progress.step)
    saved = Saved(final, progress.step, progress.tokens, progress.loss)
    return checkpointer.start(saved, {random_file(engine.ranks.rank): random_state()}, publish, began)


def _manifest(engine: ZeroEngine, job: Job, progress: Progress) -> dict[str, Any]:
    """What a checkpoint says of itself, but for its files. Collective: measures the loss of the weights."""
    return {
        **asdict(progress),
        "world_size": engine.ranks.world_size,
        "zero_stage": job.settings.stage,
        "precision": job.settings.precision,
        "data": job.task.stream.state(progress.step),
        "task": job.task.manifest,
        "shape": job.shape_of(progress.step).to_dict(),
        "run": to_dict(job.run),
        "tokenizer": {"sha256": job.tokenizer.sha256, "vocabulary_size": job.tokenizer.vocabulary_size},
        "tied": [list(names) for names in job.task.tied],
        "loss_check": measure_loss(engine, job, progress.step),
        "optimizer_step": engine.zero_state().optimizer_step,
        "versions": {"megadec": megadec.__version__, "torch": torch.__version__, "deepspeed": version("deepspeed")},
    }
