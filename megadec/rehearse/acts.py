"""What is done to a start of a rehearsed run: the moment is waited for, and the stroke falls."""

import contextlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from megadec.common.config import to_dict
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.runs.pretrain import PretrainRun
from megadec.rehearse.attempt import Attempt, Pace
from megadec.rehearse.disturbances import ALL_RANKS, FULL_DISK, LAUNCHER, Disturbance

STARTING = "while it started"
# A file may get so large when the disk is to refuse: metrics and manifests of some sort fit, weights do not.
REFUSED_BYTES = 20_000
REFUSALS = {"full disk for a while": "The state stays in memory", "full disk between saves": "lines stay in memory"}
# Of a shard that is cut so much is left.
KEPT_FRACTION = 0.6


@contextlib.contextmanager
def damaged(link: Path, *, cut: bool) -> Iterator[None]:
    """A copy that was cut, or has one flipped byte, stands in place of a link to a shard."""
    source = link.resolve()
    copy = link.with_name(f".{link.name}.damaged")
    shutil.copyfile(source, copy)
    size = copy.stat().st_size
    if cut:
        os.truncate(copy, int(size * KEPT_FRACTION))
    else:
        np.memmap(copy, mode="r+")[size // 2] ^= 1
    copy.replace(link)
    try:
        yield
    finally:
        link.unlink()
        link.symlink_to(source)


@contextlib.contextmanager
def moved(folder: Path, run: PretrainRun) -> Iterator[list[str]]:
    """The folder that holds the run's folders of shards has another name; gives the options that tell a start."""
    elsewhere = folder.with_name(f"{folder.name}-moved")
    folder.rename(elsewhere)
    try:
        options: dict[str, Any] = {"data.train": run.data.train}
        if run.data.max_epochs:
            options["data.max_epochs"] = run.data.max_epochs
        if run.stages:
            options["stages"] = to_dict(run.stages)
        yield [
            f"--{name}={json.dumps(value, ensure_ascii=False).replace(f'{folder}/', f'{elsewhere}/')}"
            for name, value in options.items()
        ]
    finally:
        elsewhere.rename(folder)


@contextlib.contextmanager
def frozen(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """They stand still meanwhile, and hold what they hold."""
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            process.resume()


def disturb(start: Attempt, what: Disturbance, pace: Pace, start_again: Callable[[], None]) -> str:
    """Wait for the moment, do to the run what is due, and return where in the run it was. start_again: a second start.

    That is seen in the run's files around the stroke; between the look and the signal it goes on for a fraction of a
    millisecond. Raises NotSeenError when the moment never came.
    """
    if what.moment == "before":
        return "before the start" if what.kind else ""
    if what.moment == "start":
        time.sleep(what.fraction * pace["start"])
        return _strike(start, what, start.ranks())
    start.wait_for_step()
    ranks = start.ranks()  # looked up beforehand: it takes longer than a save
    start.wait(lambda: checkpoints_in(start.checkpoints), "the first checkpoint")
    if what.moment == "save":
        start.wait(lambda: len(start.lines("checkpoint")) >= what.after, f"{what.after} saves")
    under_way: dict[str, Callable[[], object]] = {
        "step": lambda: len(start.lines("train")) >= what.after,
        "save": start.saving,
        "evaluation": start.evaluating,
    }
    start.wait(under_way[what.moment], f"the {what.moment}")
    time.sleep(what.fraction * pace[what.moment])
    start.wait(under_way[what.moment], f"the {what.moment}")  # it may be over
    if what.kind in FULL_DISK:
        return _refuse(start, what, ranks)
    if what.kind == "second start":
        with frozen(ranks):
            start_again()
    return _strike(start, what, ranks)


def _strike(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Kill the victims, or ask one of them to stop."""
    victims = _victims(start, what, ranks)
    evaluating, saving = start.evaluating(), start.saving()
    for process in victims if what.kind == "kill" else victims[:1]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL if what.kind == "kill" else signal.SIGTERM)
    if saving & start.saving():
        return "in a save"
    if evaluating:
        return "in an evaluation"
    return "in a step" if start.lines("train") else STARTING


def _refuse(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Let the disk refuse what these ranks write; if for a while: until one has said so, then a save and an end."""
    between = what.kind == "full disk between saves"
    victims = ranks if between else _victims(start, what, ranks)
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in victims]
    most_bytes = start.metrics.stat().st_size if between else REFUSED_BYTES
    for process, (_, most) in limits:
        process.rlimit(psutil.RLIMIT_FSIZE, (most_bytes, most))
    if refusal := REFUSALS.get(what.kind or ""):
        start.wait(lambda: refusal in start.output, "a refusal")
        for process, former in limits:
            process.rlimit(psutil.RLIMIT_FSIZE, former)
        saves = len(start.lines("checkpoint"))
        start.wait(lambda: len(start.lines("checkpoint")) > saves, "a save after the disk had room")
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks[0].terminate()
    return "in a step" if between else "in a save"


def _victims(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> list[psutil.Process]:
    """The launcher where it is meant, and where there are no ranks yet."""
    groups: dict[int, list[psutil.Process]] = {LAUNCHER: [], ALL_RANKS: ranks}
    return groups.get(what.victim, ranks[what.victim : what.victim + 1]) or [start.launcher]
