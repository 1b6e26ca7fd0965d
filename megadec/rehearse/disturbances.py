"""What a rehearsal does to a run, and one start of it by the deepspeed launcher, seen from outside; and its end.

Every bit of the disturbances is chosen by a seed before the first start. Moments are shares of what a step, a save or
an evaluation takes, so two rehearsals with one seed do the same things in the same order, and hit different
instructions all the same.

A damaged shard is a copy in place of a link, so the user's own files are only ever read. Everything that the launcher
has started is in one session, by which it is found and ended. What a run is doing is concluded from its files, as a
user would, so that the run is the one that users have, without a hook for rehearsals.
"""

import contextlib
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import psutil

from megadec.common.errors import ConfigError, TrainingError, check_range
from megadec.common.processes import free_port, session_of
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.common import CHECKPOINTS

LOOK_SECONDS = 0.001
END_LOOK_SECONDS = 0.2  # looking through all processes takes its time
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
STARTING = "while it started"
# A file may get so large when the disk is to refuse: metrics and manifests of some sort fit, weights do not.
REFUSED_BYTES = 20_000
REFUSAL = "The state stays in memory"
# Of a shard that is cut so much is left.
KEPT_FRACTION = 0.6

Kind = Literal["kill", "stop", "cut shard", "flipped byte", "full disk", "full disk for a while"]
Moment = Literal["before", "start", "step", "save", "evaluation"]
LAUNCHER, ALL_RANKS = -1, -2
# So many steps at most a start makes before it is disturbed, with a save every second and an evaluation every third.
STEPS_A_START = 6
SAVE_EVERY, EVALUATE_EVERY = 2, 3
SHARE_AT_START = 0.1


class KindOf(NamedTuple):
    """words: for the table. groups: who may be the victim beside single ranks. options: of the start to which it
    happens. says: what the run must say then."""

    words: str
    groups: tuple[int, ...] = ()
    options: tuple[str, ...] = ()
    says: str = ""


DAMAGE: tuple[Kind, ...] = ("cut shard", "flipped byte")
FULL_DISK: tuple[Kind, ...] = ("full disk", "full disk for a while")
RETRY, REFUSED = "--checkpoint.retry_pause_seconds=0.2", "cannot write"
KINDS: dict[Kind | None, KindOf] = {
    "kill": KindOf("kill -9 of {victim}", (LAUNCHER, ALL_RANKS)),
    "stop": KindOf("SIGTERM to {victim}", (LAUNCHER,)),
    "cut shard": KindOf("a shard was cut", (ALL_RANKS,)),
    "flipped byte": KindOf("a byte of a shard was flipped", (ALL_RANKS,), ("--data.verify=hashes",)),
    "full disk": KindOf("the disk refused {victim}", (), (RETRY, "--checkpoint.retries=1"), REFUSED),
    "full disk for a while": KindOf(
        "the disk refused {victim} for a while", (ALL_RANKS,), (RETRY, "--checkpoint.retries=100000"), REFUSED
    ),
    None: KindOf("nothing; to the end"),
}


@dataclass(frozen=True)
class RehearsalOptions:
    """ranks: of every start. rank_numbers: draw each start's from these instead. other_deepspeed: each start draws its
    DeepSpeed file from these and that of --deepspeed.

    kills: with signal 9. share_in_saves: of the kills, while a checkpoint is being written. share_in_evaluations: of
    the kills, in an evaluation. stops: SIGTERM. damaged_shards: starts with a shard that was cut or has a flipped byte.
    full_disks: saves that the disk refuses. seed: of all choices. steps: of the run; by default as many as the
    disturbances can use up. sequence_length: of the scaled run. own_model: train the run's own model, not a small one
    of its kind.

    tolerance: largest relative difference of a loss to the undisturbed run; by default 1e-5 in fp32 and 1e-2 in bf16.
    patience_seconds: so long anything may take. folder: for the runs and their output (default: a temporary one, which
    goes when all is well). output: where the report goes as JSON.
    """

    ranks: int = 2
    rank_numbers: tuple[int, ...] = ()
    other_deepspeed: tuple[Path, ...] = ()
    kills: int = 10
    share_in_saves: float = 0.4
    share_in_evaluations: float = 0.2
    stops: int = 2
    damaged_shards: int = 2
    full_disks: int = 2
    seed: int = 0
    steps: int | None = None
    sequence_length: int = 64
    own_model: bool = False
    tolerance: float | None = None
    patience_seconds: float = 900.0
    folder: Path | None = None
    output: Path | None = None

    def __post_init__(self) -> None:
        counts = ("kills", "stops", "damaged_shards", "full_disks")
        check_range(self, "rehearsal.", *counts, "tolerance", "share_in_saves", "share_in_evaluations", least=0)
        check_range(self, "rehearsal.", "sequence_length", least=2)
        check_range(self, "rehearsal.", "patience_seconds", above=0)
        if min(self.all_ranks) < 1:
            raise ConfigError(f"rehearse: {min(self.all_ranks)} ranks; at least 1 trains")
        if self.share_in_saves + self.share_in_evaluations > 1:
            raise ConfigError(
                f"rehearsal.share_in_saves={self.share_in_saves} and rehearsal.share_in_evaluations="
                f"{self.share_in_evaluations}: shares of all kills are together at most 1"
            )
        if self.run_steps < self.steps_needed:
            raise ConfigError(
                f"rehearsal.steps={self.steps} is less than the {self.steps_needed} that {self.disturbances}"
                f" disturbances can use up ({STEPS_A_START} each): name more steps, or fewer disturbances"
            )

    @property
    def all_ranks(self) -> tuple[int, ...]:
        """Every number of ranks that a start may have."""
        return self.rank_numbers or (self.ranks,)

    @property
    def disturbances(self) -> int:
        """How many rows the rehearsal has, without the last one, which ends the run."""
        return self.kills + self.stops + self.damaged_shards + self.full_disks

    @property
    def steps_needed(self) -> int:
        """After so many steps the run is surely not done before the last disturbance."""
        return STEPS_A_START * (self.disturbances + 1)

    @property
    def run_steps(self) -> int:
        """How many steps the run has."""
        return self.steps_needed if self.steps is None else self.steps


@dataclass(frozen=True)
class Disturbance:
    """One start of the run and what is done to it.

    kind: None for the last start, which nothing happens to. victim: a rank's number, LAUNCHER or ALL_RANKS. after: so
    many steps, saves or evaluations of this start come first. fraction: how far into the step, save or evaluation it
    comes. ranks, deepspeed: of this start; the latter counts the files from 0, which is that of --deepspeed.
    """

    kind: Kind | None
    moment: Moment
    victim: int
    after: int
    fraction: float
    ranks: int
    deepspeed: int = 0

    @property
    def words(self) -> str:
        """What is done, for the table."""
        victim = {LAUNCHER: "the launcher", ALL_RANKS: "all ranks"}.get(self.victim, f"rank {self.victim}")
        return KINDS[self.kind].words.format(victim=victim)


def choose(options: RehearsalOptions, *, evaluates: bool) -> list[Disturbance]:
    """Every disturbance of a rehearsal, in order. evaluates: the run has held-out sets; if not, no kill waits for them.

    Pure: the same options give the same list.
    """
    chance = random.Random(options.seed)
    evaluation: Moment = "evaluation" if evaluates else "step"
    in_saves = math.ceil(options.kills * options.share_in_saves)
    in_evaluations = min(round(options.kills * options.share_in_evaluations), options.kills - in_saves)
    at_start = min(round(options.kills * SHARE_AT_START), options.kills - in_saves - in_evaluations)
    stops: tuple[Moment, ...] = ("step", "save", evaluation)
    kinds: list[tuple[Kind, Moment]] = [("kill", "save")] * in_saves
    kinds += [("kill", evaluation)] * in_evaluations
    kinds += [("kill", "start")] * at_start
    kinds += [("kill", "step")] * (options.kills - len(kinds))
    kinds += [("stop", stops[number % 3]) for number in range(options.stops)]
    kinds += [(DAMAGE[number % 2], "before") for number in range(options.damaged_shards)]
    kinds += [(FULL_DISK[number % 2], "save") for number in range(options.full_disks)]
    chance.shuffle(kinds)
    return [_draw(kind, moment, options, chance) for kind, moment in kinds]


def _draw(kind: Kind, moment: Moment, options: RehearsalOptions, chance: random.Random) -> Disturbance:
    ranks = chance.choice(options.all_ranks)
    groups = [group for group in KINDS[kind].groups if moment != "start" or group != LAUNCHER]
    victims = [*range(ranks), *range(ranks), *groups]
    # A save comes every second step, an evaluation every third: more of them than these would take too many steps.
    after = {"step": chance.randint(1, 4), "save": chance.randint(0, 1)}.get(moment, 0)
    victim, fraction = chance.choice(victims), chance.random()
    return Disturbance(kind, moment, victim, after, fraction, ranks, chance.randrange(1 + len(options.other_deepspeed)))


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


Pace = Mapping[str, float]
"""Seconds that a start takes to its first step, and a step, a save, an evaluation, by Moment."""


class NotSeenError(TrainingError):
    """What a rehearsal waits for has not come."""


class Attempt:
    """A run that was started. A context manager: whatever is left of it is gone at the end.

    command: the script and its options. run_folder: where its metrics will be. log: gets its output. launcher: the
    leader of the session.
    """

    def __init__(
        self, command: Sequence[str], ranks: int, run_folder: Path, log: Path, patience_seconds: float
    ) -> None:
        self.log, self.checkpoints = log, run_folder / CHECKPOINTS
        self._script, self._patience, self._metrics = command[0], patience_seconds, run_folder / FILE_NAME
        self._before = frozenset(_whole_lines(self._metrics))
        environment = _environment()
        launcher = shutil.which("deepspeed", path=environment["PATH"])
        if launcher is None:
            raise TrainingError("there is no command deepspeed on PATH, which starts the ranks: pip install deepspeed")
        self.launcher = psutil.Popen(
            [launcher, "--num_accelerators", str(ranks), "--master_port", str(free_port()), *command],
            env=environment,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # A pipe and not a file: a limit on the size of files, by which the disk is made to refuse, is not for it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while living := session_of(self.launcher.pid):
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(LOOK_SECONDS)
        self.launcher.wait()
        self._reader.join()

    @property
    def output(self) -> str:
        """What the run has written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind that this start has added to metrics.jsonl so far."""
        return [line for line in read_lines(self._metrics, self._before) if line["kind"] == kind]

    def ranks(self) -> list[psutil.Process]:
        """The living training processes, by rank."""
        found = {}
        for process in session_of(self.launcher.pid):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if len(words) > 3 and words[2] == self._script and words[3].startswith("--local_rank="):
                    found[int(words[3].partition("=")[2])] = process
        return [found[number] for number in sorted(found)]

    def saving(self) -> set[str]:
        """The checkpoints that are being written now, by their hidden names."""
        return {path.name for path in self.checkpoints.glob(".step_*")}

    def evaluating(self) -> bool:
        """Whether the last step was one to evaluate after, and its evaluation is not there yet."""
        trained = self.lines("train")
        if not trained or trained[-1]["step"] % EVALUATE_EVERY:
            return False
        return all(line["step"] != trained[-1]["step"] for line in self.lines("evaluate"))

    def wait(self, condition: Callable[[], object], what: str) -> None:
        """Until the condition holds. Raises NotSeenError when the run has ended, or patience has."""
        deadline = time.monotonic() + self._patience
        while not condition():
            if time.monotonic() > deadline:
                raise NotSeenError(f"{what} did not come in {self._patience:g} s")
            if self.launcher.poll() is not None and not condition():
                raise NotSeenError(f"the run ended with {self.launcher.returncode} before {what}")
            time.sleep(LOOK_SECONDS)

    def wait_for_end(self) -> tuple[int, float]:
        """Until every process is gone: the launcher's exit status and how many seconds it took.

        Raises NotSeenError when patience has ended; what is left is killed on leaving.
        """
        began = time.monotonic()
        while self.launcher.poll() is None or session_of(self.launcher.pid):
            if time.monotonic() > began + self._patience:
                left = ", ".join(str(process.pid) for process in session_of(self.launcher.pid))
                raise NotSeenError(f"processes {left} were still there after {self._patience:g} s")
            time.sleep(END_LOOK_SECONDS)
        self._reader.join()
        return self.launcher.wait(), time.monotonic() - began

    def wait_for_step(self) -> None:
        """Until the first step of this start is done."""
        self.wait(lambda: self.lines("train"), "the first step")

    def pace(self, seconds_to_first_step: float) -> Pace:
        """How long things took in this run, in the median, so that a moment in a later start can be hit."""
        evaluations: dict[int, float] = {}
        for line in self.lines("evaluate"):
            evaluations[line["step"]] = evaluations.get(line["step"], 0.0) + line["seconds"]
        return {
            "start": seconds_to_first_step,
            "step": statistics.median(line["seconds"] for line in self.lines("train")),
            "save": statistics.median(line["seconds"] for line in self.lines("checkpoint")),
            "evaluation": statistics.median(evaluations.values() or [0.0]),
        }

    def _read(self) -> None:
        with open(self.log, "wb", buffering=0) as file, self.launcher.stdout as stream:
            shutil.copyfileobj(stream, file)


def read_lines(path: Path, before: Collection[bytes] = ()) -> list[dict[str, Any]]:
    """The lines of a metrics file, none where there is no file. before: lines of earlier starts, which are left out.

    A start first puts a file without the lines of lost steps in place of the one before; a step that is done again
    takes another time, which makes its line another.
    """
    return [json.loads(line) for line in _whole_lines(path) if line not in before]


def _whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _environment() -> dict[str, str]:
    """Ours, for ranks on the CPU over gloo that do not fight for cores."""
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    threads = inherited.get("OMP_NUM_THREADS", "1")
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu"}


def disturb(start: Attempt, what: Disturbance, pace: Pace) -> str:
    """Wait for the moment, do to the run what is due, and return where in the run it was.

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
    return _strike(start, what, ranks) if what.kind in ("kill", "stop") else _refuse(start, what, ranks)


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
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in _victims(start, what, ranks)]
    for process, (_, most) in limits:
        process.rlimit(psutil.RLIMIT_FSIZE, (REFUSED_BYTES, most))
    if what.kind == "full disk for a while":
        start.wait(lambda: REFUSAL in start.output, "a refusal")
        for process, former in limits:
            process.rlimit(psutil.RLIMIT_FSIZE, former)
        saves = len(start.lines("checkpoint"))
        start.wait(lambda: len(start.lines("checkpoint")) > saves, "a save after the disk had room")
        with contextlib.suppress(psutil.NoSuchProcess):
            ranks[0].terminate()
    return "in a save"


def _victims(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> list[psutil.Process]:
    """The launcher where it is meant, and where there are no ranks yet."""
    groups: dict[int, list[psutil.Process]] = {LAUNCHER: [], ALL_RANKS: ranks}
    return groups.get(what.victim, ranks[what.victim : what.victim + 1]) or [start.launcher]
