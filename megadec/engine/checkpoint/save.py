"""A step becomes a checkpoint: what it says beside the state, and the name that it gets last.

In come a run, how far it is, and a saver; out goes a folder that `checkpoint.py` finds. Rank 0 alone completes a
checkpoint, so one process answers for its name.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import megadec
from megadec.common.config import to_dict, to_yaml
from megadec.common.files import sync_folder, sync_tree, write_json
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.engine.checkpoint.checkpointer import AsyncCheckpointer
from megadec.engine.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    RUN_FILE,
    VERSION,
    Progress,
    checkpoint_name,
    remove_old,
    replaced_name,
)
from megadec.engine.checkpoint.rng_state import random_file, random_state
from megadec.engine.checkpoint.skipped import starts_to_json
from megadec.engine.checkpoint.verify import LossCheck, loss_check
from megadec.engine.checkpoint.writer import Sums, write_small
from megadec.engine.early_stopping import write_best
from megadec.engine.metrics.reports import Saved
from megadec.engine.runs.common import Job
from megadec.engine.zero.engine import ZeroEngine


def begin_checkpoint(
    saver: AsyncCheckpointer, engine: ZeroEngine, job: Job, progress: Progress, *, best: bool = False
) -> Saved | None:
    """Begin to save step_N as the state is now; training may go on when this returns. No other save is under way.

    Returns the checkpoint where it is already whole, as `AsyncCheckpointer.start` does.
    best: best.json names this step as soon as the checkpoint has its name, before older ones go. Collective.
    """
    began = time.perf_counter()
    measured, data_state = loss_check(engine, job, progress.step), job.task.stream.state(progress.step)
    ending = Ending(job, progress, data_state, measured, saver.optimizer_step)

    def publish(partial: Path, final: Path, files: dict[str, Any], sums: Sums) -> None:
        if partial.exists():  # not so when what comes after the name is tried again
            _finish(partial, final, ending, files, sums)
        if best:
            write_best(job.run.folder, job.run.early_stopping, progress.best)
        remove_old(final.parent, job.run.checkpoint, progress.best.step)

    final = job.run.checkpoints / checkpoint_name(progress.step)
    saved = Saved(final, progress.step, progress.tokens, progress.loss)
    return saver.start(saved, {random_file(saver.rank): random_state()}, publish, began)


@dataclass(frozen=True)
class Ending:
    """What rank 0 writes into a checkpoint when every rank's files are there."""

    job: Job
    progress: Progress
    data_state: dict[str, Any]
    loss_check: LossCheck
    optimizer_step: int | None


def _finish(partial: Path, final: Path, ending: Ending, files: dict[str, Any], sums: Sums) -> None:
    """The small files, the manifest, and the name."""
    job, progress = ending.job, ending.progress
    small = {
        RUN_FILE: write_small(partial / RUN_FILE, to_yaml(job.run).encode()),
        TOKENIZER_FILE: write_small(partial / TOKENIZER_FILE, Path(job.tokenizer.path).read_bytes()),
    }
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "step": progress.step,
        "tokens": progress.tokens,
        "loss": progress.loss,
        "evaluated_step": progress.evaluated_step,
        "best": asdict(progress.best),
        "guard": progress.guard.to_json(),
        "starts": starts_to_json(progress.starts),
        "origins": [dict(source) for source in progress.origins],
        "world_size": job.ranks,
        "zero_stage": job.settings.stage,
        "precision": job.settings.precision,
        "data": ending.data_state,
        "task": job.task.manifest,
        "shape": job.task.shape.to_dict(),
        "run": to_dict(job.run),
        "tokenizer": {"sha256": job.tokenizer.sha256, "vocabulary_size": job.tokenizer.vocabulary_size},
        "tied": [list(names) for names in job.task.tied],
        "files": dict(sorted((files | small).items())),
        "loss_check": {**asdict(ending.loss_check), "precision": job.settings.precision},
        "optimizer_step": ending.optimizer_step,
        "bit_sums": {name: {part: f"{value:016x}" for part, value in of.items()} for name, of in sorted(sums.items())},
        "versions": {"megadec": megadec.__version__, "torch": torch.__version__, "deepspeed": version("deepspeed")},
    }
    write_json(partial / MANIFEST, manifest)
    sync_tree(partial)
    if final.exists():  # the same step again: after an evaluation, or from a run that went on from before it
        replaced = replaced_name(final)
        shutil.rmtree(replaced, ignore_errors=True)
        os.replace(final, replaced)
    os.replace(partial, final)
    sync_folder(final.parent)
    shutil.rmtree(replaced_name(final), ignore_errors=True)
