"""One start of a run by the deepspeed launcher, seen from outside: its processes, output and metrics; and its end.

Everything that the launcher has started is in one session, by which it is found and ended. What a run is doing is
concluded from its files, as a user would, so that the run is the one that users have, without a hook for rehearsals.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from megadec.common.errors import TrainingError
from megadec.common.processes import free_port, session_of
from megadec.engine.checkpoint.manifest import checkpoints_in
from megadec.engine.metrics.options import FILE_NAME
from megadec.rehearse.disturbances import ALL_RANKS, DAMAGE, EVALUATE_EVERY, LAUNCHER, Disturbance, Moment

LOOK_SECONDS = 0.002
SAVE_LOOK_SECONDS = 0.001
END_LOOK_SECONDS = 0.2  # looking through all processes takes its time
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")
STARTING = "while it started"
# A file may get so large when the disk is to refuse: metrics and manifests of some sort fit, weights do not.
REFUSED_BYTES = 20_000
REFUSAL = "The state stays in memory"

Pace = Mapping[Moment, float]
"""Seconds that a start takes to its first step, and a step, a save, an evaluation."""


class NotSeenError(TrainingError):
    """What a rehearsal waits for has not come."""


class Attempt:
    """A run that was started. A context manager: whatever is left of it is gone at the end.

    command: the script and its options. run_folder: where its metrics will be. log: gets its output.
    """

    def __init__(
        self, command: Sequence[str], ranks: int, run_folder: Path, log: Path, patience_seconds: float
    ) -> None:
        self._script = command[0]
        self._patience = patience_seconds
        self._metrics = run_folder / FILE_NAME
        self._before = frozenset(_whole_lines(self._metrics))
        self.checkpoints = run_folder / "checkpoints"
        self._output: list[str] = []
        environment = _environment()
        launcher = shutil.which("deepspeed", path=environment["PATH"])
        if launcher is None:
            raise TrainingError("there is no command deepspeed on PATH, which starts the ranks: pip install deepspeed")
        self._process = subprocess.Popen(
            [launcher, "--num_accelerators", str(ranks), "--master_port", str(free_port()), *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        # A pipe and not a file: a limit on the size of files, by which the disk is made to refuse, is not for it.
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while living := session_of(self._process.pid):
            for process in living:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(LOOK_SECONDS)
        self._process.wait()
        self._reader.join()

    @property
    def launcher(self) -> psutil.Process:
        """The leader of the session."""
        return psutil.Process(self._process.pid)

    @property
    def output(self) -> str:
        """What the run has written so far."""
        return "".join(self._output)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """The lines of one kind that this start has added to metrics.jsonl so far."""
        return [line for line in read_lines(self._metrics, self._before) if line["kind"] == kind]

    def ranks(self) -> list[psutil.Process]:
        """The living training processes, by rank."""
        found = {}
        for process in session_of(self._process.pid):
            with contextlib.suppress(psutil.Error):
                words = process.cmdline()
                if len(words) > 3 and words[2] == self._script and words[3].startswith("--local_rank="):
                    found[int(words[3].partition("=")[2])] = process
        return [found[number] for number in sorted(found)]

    def saving(self) -> set[str]:
        """The checkpoints that are being written now, by their hidden names."""
        try:
            return {entry.name for entry in os.scandir(self.checkpoints) if entry.name.startswith(".step_")}
        except FileNotFoundError:
            return set()

    def evaluating(self) -> bool:
        """Whether the last step was one to evaluate after, and its evaluation is not there yet."""
        trained = self.lines("train")
        if not trained or trained[-1]["step"] % EVALUATE_EVERY:
            return False
        return all(line["step"] != trained[-1]["step"] for line in self.lines("evaluate"))

    def wait(self, condition: Callable[[], bool], what: str, pause: float = LOOK_SECONDS) -> None:
        """Until the condition holds. Raises NotSeenError when the run has ended, or patience has."""
        deadline = time.monotonic() + self._patience
        looked = 0.0
        while not condition():
            now = time.monotonic()
            if now > deadline:
                raise NotSeenError(f"{what} did not come in {self._patience:g} s")
            if now > looked + END_LOOK_SECONDS:
                looked = now
                if self._process.poll() is not None and not condition():
                    raise NotSeenError(f"the run ended with {self._process.returncode} before {what}")
            time.sleep(pause)

    def wait_for_end(self) -> tuple[int, float]:
        """Until every process is gone: the launcher's exit status and how many seconds it took.

        Raises NotSeenError when patience has ended; what is left is killed on leaving.
        """
        began = time.monotonic()
        while self._process.poll() is None or session_of(self._process.pid):
            if time.monotonic() > began + self._patience:
                left = ", ".join(str(process.pid) for process in session_of(self._process.pid))
                raise NotSeenError(f"processes {left} were still there after {self._patience:g} s")
            time.sleep(END_LOOK_SECONDS)
        self._reader.join()
        return self._process.wait(), time.monotonic() - began

    def wait_for_step(self) -> None:
        """Until the first step of this start is done."""
        self.wait(lambda: bool(self.lines("train")), "the first step")

    def _read(self, log: Path) -> None:
        assert self._process.stdout is not None
        with open(log, "wb", buffering=0) as file, self._process.stdout as stream:
            for line in stream:
                file.write(line)
                self._output.append(line.decode(errors="replace"))


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


def pace_of(start: Attempt, seconds_to_first_step: float) -> Pace:
    """How long things take in a run, in the median, so that a moment in a later start can be hit."""
    evaluations: dict[int, float] = {}
    for line in start.lines("evaluate"):
        evaluations[line["step"]] = evaluations.get(line["step"], 0.0) + line["seconds"]
    return {
        "start": seconds_to_first_step,
        "step": statistics.median(line["seconds"] for line in start.lines("train")),
        "save": statistics.median(line["seconds"] for line in start.lines("checkpoint")),
        "evaluation": statistics.median(list(evaluations.values()) or [0.0]),
    }


def disturb(start: Attempt, what: Disturbance, pace: Pace) -> str:
    """Wait for the moment, do to the run what is due, and return where in the run it was.

    That is seen in the run's files around the stroke; between the look and the signal it goes on for a fraction of a
    millisecond. Raises NotSeenError when the moment never came.
    """
    if what.kind in DAMAGE:
        return "before the start"
    if what.moment == "start":
        time.sleep(what.fraction * pace["start"])
        return _strike(start, what, start.ranks())
    start.wait_for_step()
    ranks = start.ranks()  # looked up beforehand: it takes longer than a save
    start.wait(lambda: bool(checkpoints_in(start.checkpoints)), "the first checkpoint")
    under_way: dict[Moment, Callable[[], bool]] = {
        "step": lambda: len(start.lines("train")) >= what.after,
        "save": lambda: bool(start.saving()),
        "evaluation": start.evaluating,
    }
    pause = LOOK_SECONDS
    if what.moment == "save":
        start.wait(lambda: len(start.lines("checkpoint")) >= what.after, f"{what.after} saves")
        pause = SAVE_LOOK_SECONDS
    start.wait(under_way[what.moment], f"the {what.moment}", pause)
    time.sleep(what.fraction * pace[what.moment])
    start.wait(under_way[what.moment], f"the {what.moment}", pause)  # it may be over
    return _strike(start, what, ranks) if what.kind in ("kill", "stop") else _refuse(start, what, ranks)


def _strike(start: Attempt, what: Disturbance, ranks: list[psutil.Process]) -> str:
    """Kill the victims, or ask one of them to stop."""
    victims = [start.launcher] if what.victim == LAUNCHER else _victims(what, ranks)
    victims = victims or [start.launcher]  # there were no ranks yet
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
    limits = [(process, process.rlimit(psutil.RLIMIT_FSIZE)) for process in _victims(what, ranks)]
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


def _victims(what: Disturbance, ranks: list[psutil.Process]) -> list[psutil.Process]:
    return ranks if what.victim == ALL_RANKS else ranks[what.victim : what.victim + 1]
