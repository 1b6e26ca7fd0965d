"""A disturbance happens: wait for its moment in a run that was started, and do it.

In come a start and a disturbance, out goes where in the run it struck, seen in the run's files around the stroke, and
not as it was planned. Between the look and the signal the run goes on for a fraction of a millisecond.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

import psutil

from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.rehearse.choice import ALL_RANKS, EVALUATE_EVERY, LAUNCHER, Disturbance
from megadec.rehearse.report import STARTING
from megadec.rehearse.start import Start

# A file may get so large when the disk is to refuse: metrics and manifests of some sort fit, weights do not.
REFUSED_BYTES = 20_000
REFUSAL = "The state stays in memory"


@dataclass
class Pace:
    """How long things took in the starts so far, in seconds: so a moment in the next one can be hit."""

    start: float = 5.0
    step: float = 0.1
    save: float = 0.1
    evaluation: float = 0.2
    _seen: dict[str, list[float]] = field(default_factory=dict)

    def learn(self, start: Start) -> None:
        """Take over what a start has told."""
        trained = start.metrics.of("train")
        self._add("step", [line["seconds"] for line in trained])
        self._add("save", [line["seconds"] for line in start.metrics.of("checkpoint")])
        by_step: dict[int, float] = {}
        for line in start.metrics.of("evaluate"):
            by_step[line["step"]] = by_step.get(line["step"], 0.0) + line["seconds"]
        self._add("evaluation", list(by_step.values()))

    def learn_start(self, seconds: float) -> None:
        """A start took so long to its first own line."""
        self._add("start", [seconds])

    def _add(self, name: str, values: list[float]) -> None:
        seen = self._seen.setdefault(name, [])
        seen += values
        if seen:
            setattr(self, name, statistics.median(seen[-50:]))


def disturb(start: Start, what: Disturbance, pace: Pace) -> str:
    """Do to the run what is due, and return where in the run it was. Raises NotSeenError when its moment never came."""
    if what.kind in ("cut shard", "flipped byte"):
        return "before the start"
    if what.moment == "start":
        time.sleep(what.fraction * pace.start)
        return _strike(start, what, start.ranks())
    start.wait(lambda: bool(start.metrics.of("train")), "the first step")
    pace.learn_start(time.monotonic() - start.began)
    ranks = start.ranks()  # looked up beforehand: it takes longer than a save
    _await_moment(start, what, pace)
    if what.kind in ("kill", "stop"):
        return _strike(start, what, ranks)
    return _refuse(start, what, ranks)


def is_evaluating(start: Start) -> bool:
    """Whether the last step was one to evaluate after, and its evaluation is not there yet."""
    trained = start.metrics.of("train")
    if not trained or trained[-1]["step"] % EVALUATE_EVERY:
        return False
    return all(line["step"] != trained[-1]["step"] for line in start.metrics.of("evaluate"))


def _await_moment(start: Start, what: Disturbance, pace: Pace) -> None:
    start.wait(lambda: bool(checkpoints_in(start.checkpoints)), "the first checkpoint")
    if what.moment == "step":
        start.wait(lambda: len(start.metrics.of("train")) >= what.after, f"step {what.after} of this start")
        time.sleep(what.fraction * pace.step)
    elif what.moment == "evaluation":
        start.wait(lambda: is_evaluating(start), "an evaluation")
        time.sleep(what.fraction * pace.evaluation)
        start.wait(lambda: is_evaluating(start), "an evaluation")
    else:
        start.wait(lambda: len(start.metrics.of("checkpoint")) >= what.after, f"{what.after} saves")
        start.wait(lambda: bool(start.saving()), "a save", pause=0.001)
        time.sleep(what.fraction * pace.save)
        start.wait(lambda: bool(start.saving()), "a save", pause=0.001)


def _strike(start: Start, what: Disturbance, ranks: list[psutil.Process]) -> str:
    launcher = psutil.Process(start.launcher)
    victims = {LAUNCHER: [launcher], ALL_RANKS: ranks}.get(what.victim, ranks[what.victim : what.victim + 1])
    victims = victims or [launcher]  # there were no ranks yet
    evaluating, saving = is_evaluating(start), start.saving()
    if what.kind == "kill":
        start.kill(victims)
    else:
        start.stop(victims[0])
    if saving & start.saving():
        return "in a save"
    if evaluating:
        return "in an evaluation"
    return "in a step" if start.metrics.of("train") else STARTING


def _refuse(start: Start, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Let the disk refuse what these ranks write; if for a while: until one has said so, then a save and an end."""
    victims = ranks if what.victim == ALL_RANKS else ranks[what.victim : what.victim + 1]
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in victims]
    for process, (_, most) in limits:
        process.rlimit(psutil.RLIMIT_FSIZE, (REFUSED_BYTES, most))
    if what.kind == "full disk for a while":
        start.wait(lambda: REFUSAL in start.output, "a refusal")
        for process, former in limits:
            process.rlimit(psutil.RLIMIT_FSIZE, former)
        saves = len(start.metrics.of("checkpoint"))
        start.wait(lambda: len(start.metrics.of("checkpoint")) > saves, "a save after the disk had room")
        start.stop(ranks[0])
    return "in a save"
