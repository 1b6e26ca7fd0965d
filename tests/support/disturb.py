"""Trainings in which something goes wrong on purpose.

In a plan of tests/support/train_many.py "break": {"rank": R, "steps": [N, ...], "value": X} puts X into that rank's
gradient of one parameter, by a hook in the backward pass of these steps; "sleep": {"rank": R, "step": N, "seconds": S}
waits there. "bare": true trains by DeepSpeed's own step, with no hook and no gate of ours.
"""

import hashlib
import json
import os
import re
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from megadec.common.errors import run_main
from megadec.common.ranks import is_first, rank
from megadec.engine.zero.engine import ZeroEngine, build_engine
from megadec.engine.zero.gradients import GradientWatch
from megadec.pretrain.command import pretrain
from tests.support.processes import metrics_of, wait_until

PARAMETER = "layers.1.mlp.down_proj.weight"


def hash_of(engine: ZeroEngine) -> str:
    """Of this rank's share of weights and optimizer state, bit by bit."""
    digest = hashlib.sha256()
    optimizer = engine._engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    for group in inner.param_groups:
        for parameter in group["params"]:
            digest.update(parameter.detach().contiguous().view(torch.uint8).numpy().tobytes())
            for name, value in sorted(inner.state.get(parameter, {}).items()):
                digest.update(name.encode() + value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    for parameter in engine.module.parameters():
        own = getattr(parameter, "ds_tensor", parameter)
        digest.update(own.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def disturb(engine: ZeroEngine, training: dict[str, Any], steps: list[dict[str, Any]]) -> None:
    """Hook into the gradient of one parameter, and hash around every update."""
    done = 0
    nobody = {"rank": -1, "steps": []}
    broken, sleeping = training.get("break", nobody), training.get("sleep", nobody)

    def spoil(gradient: Tensor) -> Tensor:
        if rank() == sleeping["rank"] and done + 1 == sleeping["step"]:
            time.sleep(sleeping["seconds"])
        if rank() == broken["rank"] and done + 1 in broken["steps"]:
            gradient = gradient.clone()
            gradient.view(-1)[0] = broken["value"]
        return gradient

    dict(engine.module.named_parameters())[PARAMETER].register_hook(spoil)
    update, skip = engine.update, engine.skip_update

    def counted(kind: str, call: Any, *arguments: Any) -> None:
        nonlocal done
        before = hash_of(engine)
        call(*arguments)
        done += 1
        steps.append({"step": done, "call": kind, "same": hash_of(engine) == before})

    engine.update = lambda rate: counted("update", update, rate)  # type: ignore[method-assign]
    engine.skip_update = lambda: counted("skip", skip)  # type: ignore[method-assign]


@contextmanager
def disturbed(training: dict[str, Any], report: Path) -> Iterator[None]:
    """Train so inside. For every step of a run that is broken or sleeps `report` says whether it updated, and whether
    weights and optimizer state of the rank are, bit by bit, what they were before."""
    steps: list[dict[str, Any]] = []

    def build(*arguments: Any) -> ZeroEngine:
        if training.get("bare"):
            with (
                # Whose norm is unknown before the step.
                mock.patch("megadec.engine.zero.engine.gate_of", return_value=SimpleNamespace(norm=lambda: 1.0)),
                mock.patch("megadec.engine.zero.engine.GradientWatch", return_value=GradientWatch(())),
            ):
                return build_engine(*arguments)
        engine = build_engine(*arguments)
        disturb(engine, training, steps)
        return engine

    if not training.keys() & {"break", "sleep", "bare"}:
        yield
        return
    with mock.patch("megadec.engine.loop.build_engine", build):
        try:
            yield
        finally:
            report.write_text(json.dumps(steps))


def pretrain_rank(arguments: list[str]) -> None:
    """What launch/pretrain.py does."""
    run_main(pretrain, arguments)


def pretrain_halting(arguments: list[str], moment: str, marker: Path, pipe: Path) -> None:
    """Rank 0 halts once it has flushed a file that `moment` matches, until the other end of the pipe is closed."""
    flush = os.fsync

    def halt(descriptor: int) -> None:
        flush(descriptor)
        file = os.readlink(f"/proc/self/fd/{descriptor}")
        if is_first() and re.search(moment, file) and not marker.exists():
            with open(pipe) as stream:
                marker.touch()
                stream.read()

    with mock.patch("os.fsync", halt):
        pretrain_rank(arguments)


def on_full_disk(
    do: Callable[[Any], None], argument: Any, full_rank: int, freed: tuple[Path, int] | None = None
) -> None:
    """A limit on the size of a file is what a test without a disk of its own can have: one rank's writes fail half-way.

    freed: the folder of a run, and after how many of its steps the limit goes.
    """
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def free(folder: Path, steps: int) -> None:
        wait_until(lambda: len(metrics_of(folder)) >= steps, "the step")
        time.sleep(0.5)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)

    if rank() == full_rank:
        # Less than a rank's state, more than the log that it writes into.
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
        if freed is not None:
            threading.Thread(target=free, args=freed, daemon=True).start()
    do(argument)
