"""One start of a rehearsed run by the deepspeed launcher, seen from outside, and its end.

Everything that the launcher has started is in one session, by which it is found and ended. What a run is doing is
concluded from its files, as a user would, so that the run is the one that users have, without a hook for rehearsals.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from megadec.common.errors import TrainingError
from megadec.common.processes import free_port, session_of
from megadec.common.ranks import PLACE
from megadec.engine.metrics.options import FILE_NAME
from megadec.engine.runs.common import CHECKPOINTS
from megadec.rehearse.disturbances import EVALUATE_EVERY

LOOK_SECONDS = 0.001
END_LOOK_SECONDS = 0.2  # looking through all processes takes its time

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
        self.log, self.checkpoints, self.metrics = log, run_folder / CHECKPOINTS, run_folder / FILE_NAME
        self._script, self._patience = command[0], patience_seconds
        self._before = frozenset(_whole_lines(self.metrics))
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
        return [line for line in read_lines(self.metrics, self._before) if line["kind"] == kind]

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
    inherited = {key: value for key, value in os.environ.items() if key not in PLACE}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    threads = inherited.get("OMP_NUM_THREADS", "1")
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu"}
