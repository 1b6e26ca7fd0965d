"""A step becomes a checkpoint: what it says beside the state, and the name that it gets last.

In come a run, how far it is, and a saver; out goes a folder that `checkpoint.py` finds. Trade-off: rank 0 alone
completes a checkpoint, so one process answers for its name.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import megadec
from megadec.common.config import to_dict, to_yaml
from megadec.common.files import sync_folder, sync_tree, write_json
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.engine.checkpoint.checkpointer import Saved, Saver
from megadec.engine.checkpoint.manifest import (
    FORMAT,
    MANIFEST,
    RUN_FILE,
    VERSION,
    Contents,
    Progress,
    checkpoint_name,
    remove_old,
    replaced_name,
)
from megadec.engine.checkpoint.rng_state import random_file, random_state
from megadec.engine.checkpoint.skipped import starts_to_json
from megadec.engine.checkpoint.verify import Probe
from megadec.engine.checkpoint.writer import Sums, write_small


def begin_checkpoint(
    saver: Saver,
    folder: Path,
    contents: Contents,
    progress: Progress,
    data_state: dict[str, Any],
    measure: Callable[[], Probe],
    named: Callable[[], None],
    saved: Callable[[Saved], None],
) -> None:
    """Save `folder`/step_N as the state is now; training may go on when this returns.

    measure: gives the loss that a resumed run must find again. named: called on rank 0, in another thread, when the
    checkpoint has its name and before older ones go. saved: called on every rank, between two later steps.
    Collective. Raises StorageError when the save before this one could not be written.
    """
    saver.wait()
    began = time.perf_counter()
    ending = Ending(contents, progress, data_state, measure(), saver.optimizer_step)

    def publish(partial: Path, final: Path, files: dict[str, Any], sums: Sums) -> None:
        if partial.exists():  # not so when what comes after the name is tried again
            _finish(partial, final, ending, files, sums)
        named()
        remove_old(folder, contents.run.checkpoint, progress.best.step)

    final = folder / checkpoint_name(progress.step)
    small_files = {random_file(saver.rank): random_state()}
    saver.start(final, progress.step, small_files, publish, saved, began)


@dataclass(frozen=True)
class Ending:
    """What rank 0 writes into a checkpoint when every rank's files are there."""

    contents: Contents
    progress: Progress
    data_state: dict[str, Any]
    probe: Probe
    optimizer_step: int | None


def _finish(partial: Path, final: Path, ending: Ending, files: dict[str, Any], sums: Sums) -> None:
    """The small files, the manifest, and the name."""
    contents, progress = ending.contents, ending.progress
    small = {
        RUN_FILE: write_small(partial / RUN_FILE, to_yaml(contents.run).encode()),
        TOKENIZER_FILE: write_small(partial / TOKENIZER_FILE, Path(contents.tokenizer.path).read_bytes()),
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
        "world_size": contents.ranks,
        "zero_stage": contents.settings.stage,
        "precision": contents.settings.precision,
        "data": ending.data_state,
        "task": contents.task.manifest,
        "shape": contents.task.shape.to_dict(),
        "run": to_dict(contents.run),
        "tokenizer": {"sha256": contents.tokenizer.sha256, "vocabulary_size": contents.tokenizer.vocabulary_size},
        "tied": [list(names) for names in contents.task.tied],
        "files": dict(sorted((files | small).items())),
        "probe": {**asdict(ending.probe), "precision": contents.settings.precision},
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
