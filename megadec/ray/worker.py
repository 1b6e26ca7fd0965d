"""What a worker of Ray Train runs: the engine's loop, with every checkpoint reported to Ray.

Ray imports this file before the worker knows its rank, and a module that logs would take itself for rank 0: everything
of megadec but its errors is imported inside the function.
"""

import logging
import os
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megadec.common.errors import ConfigError, MegadecError

if TYPE_CHECKING:
    from megadec.engine.metrics.reports import Saved


def work(request: dict[str, Any]) -> None:
    """Train as one of the workers.

    request: `run` as plain values, `deepspeed` (a file), `folder` (where relative paths begin), `known` (the names of
    the checkpoints that were there before), `ray_folder` (the run's folder as Ray calls it). Raises MegadecError.
    """
    node = socket.gethostname()
    try:
        os.chdir(request["folder"])
    except OSError as error:
        raise ConfigError(
            f"{request['folder']} cannot be entered on node {node} ({error.strerror}): the project folder"
            " must lie on a file system that every node sees"
        ) from error
    # Ray's account of each report goes past the level that it was given.
    logging.getLogger().setLevel(logging.WARNING)
    import ray

    from megadec.common.config import from_dict
    from megadec.engine.checkpoint.manifest import checkpoints_in
    from megadec.engine.health.preemption import Interrupt, listen_in_main_thread
    from megadec.engine.loop import train
    from megadec.engine.ranks import lost_ranks
    from megadec.engine.runs.pretrain import PretrainRun
    from megadec.engine.zero.engine import end_process_group, start_process_group
    from megadec.pretrain.command import open_pretraining

    # The loop runs in a thread; signals reach the main thread, where Ray runs what an actor is asked for.
    ray.get(ray.get_runtime_context().current_actor.execute.remote(listen_in_main_thread))
    run = from_dict(PretrainRun, request["run"])
    # A worker that replaces a lost one goes on from what this command has saved, whatever the first was told.
    newer = {path.name for path in checkpoints_in(run.checkpoints)} - set(request["known"])
    if newer or run.checkpoint.resume == "none":
        run = replace(run, checkpoint=replace(run.checkpoint, resume="auto"))
    try:
        job = open_pretraining(run, Path(request["deepspeed"]))
    except MegadecError as error:  # the same request was good where the command was given
        raise ConfigError(f"on node {node}: {error}") from error
    with Interrupt() as interrupt, lost_ranks("training"):
        ranks = start_process_group()
        train(replace(job, on_saved=partial(report, Path(request["ray_folder"]))), interrupt, ranks)
        end_process_group(ranks)


def report(folder: Path, saved: "Saved") -> None:
    """Tell Ray of a checkpoint where it lies, by the name that it has for the run's folder. Collective."""
    from ray import train

    train.report(
        {"step": saved.step, "tokens": saved.tokens, "loss": saved.loss},
        checkpoint=train.Checkpoint.from_directory(str(folder / saved.path.parent.name / saved.path.name)),
        checkpoint_upload_mode=train.CheckpointUploadMode.NO_UPLOAD,
        delete_local_checkpoint_after_upload=False,
    )
