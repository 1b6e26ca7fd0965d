"""One start of a run by the deepspeed launcher, seen from outside: its processes, its output, its metrics as they grow.

In come arguments as a user types them, out goes what the run has told so far. Everything that the launcher has started
is in one session, by which it is found and ended. What a run is doing is concluded from its files, as a user would, so
that the run itself is the one that users have, without a hook for rehearsals.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from megadec.common.errors import TrainingError
from megadec.common.processes import free_port, session_of
from megadec.engine.metrics.options import FILE_NAME

LOOK_SECONDS = 0.002
END_LOOK_SECONDS = 0.2  # looking through all processes takes its time
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_SIZE", "MASTER_ADDR", "MASTER_PORT")


class NotSeenError(TrainingError):
    """What a rehearsal waits for has not come."""


class Start:
    """A run that was started. A context manager: whatever is left of it is gone at the end.

    command: the script and its options. run_folder: where its metrics will be. log: gets its output.
    """

    def __init__(
        self, command: Sequence[str], ranks: int, run_folder: Path, log: Path, patience_seconds: float
    ) -> None:
        self._script = command[0]
        self._patience = patience_seconds
        self.began = time.monotonic()
        self.metrics = GrowingMetrics(run_folder / FILE_NAME)
        self.checkpoints = run_folder / "checkpoints"
        self._lines: list[str] = []
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

    def __enter__(self) -> Start:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while living := session_of(self.launcher):
            for process in living:
                _signal(process, "kill")
            time.sleep(LOOK_SECONDS)
        self._process.wait()
        self._reader.join()

    @property
    def launcher(self) -> int:
        """The process and session of the launcher."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What the run has written so far."""
        return "".join(self._lines)

    @property
    def ended(self) -> bool:
        """Whether every process is gone."""
        return self._process.poll() is not None and not session_of(self.launcher)

    def ranks(self) -> list[psutil.Process]:
        """The living training processes, by rank."""
        found = {}
        for process in session_of(self.launcher):
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if len(words) > 3 and words[2] == self._script and words[3].startswith("--local_rank="):
                found[int(words[3].partition("=")[2])] = process
        return [found[number] for number in sorted(found)]

    def kill(self, processes: Sequence[psutil.Process]) -> None:
        """Signal 9, as fast as it goes."""
        for process in processes:
            _signal(process, "kill")

    def stop(self, process: psutil.Process) -> None:
        """SIGTERM."""
        _signal(process, "terminate")

    def saving(self) -> set[str]:
        """The checkpoints that are being written now, by their hidden names."""
        try:
            return {entry.name for entry in os.scandir(self.checkpoints) if entry.name.startswith(".step_")}
        except FileNotFoundError:
            return set()

    def wait(self, condition: Callable[[], bool], what: str, pause: float = LOOK_SECONDS) -> None:
        """Until the condition holds. Raises NotSeenError when the run has ended, or patience has."""
        deadline = time.monotonic() + self._patience
        looked = 0.0
        while not condition():
            now = time.monotonic()
            if now > deadline:
                raise NotSeenError(f"{what} did not come in {self._patience:g} s")
            if now > looked + END_LOOK_SECONDS:
                if self._process.poll() is not None:
                    if condition():
                        return
                    raise NotSeenError(f"the run ended with {self._process.returncode} before {what}")
                looked = now
            time.sleep(pause)

    def wait_for_end(self) -> tuple[int, float]:
        """Until every process is gone: the launcher's exit status and how many seconds it took.

        Raises NotSeenError when patience has ended; what is left is killed on leaving.
        """
        began = time.monotonic()
        while not self.ended:
            if time.monotonic() > began + self._patience:
                left = ", ".join(str(process.pid) for process in session_of(self.launcher))
                raise NotSeenError(f"processes {left} were still there after {self._patience:g} s")
            time.sleep(END_LOOK_SECONDS)
        self._reader.join()
        return self._process.wait(), time.monotonic() - began

    def _read(self, log: Path) -> None:
        assert self._process.stdout is not None
        with open(log, "wb", buffering=0) as file, self._process.stdout as stream:
            for line in stream:
                file.write(line)
                self._lines.append(line.decode(errors="replace"))


class GrowingMetrics:
    """The lines that one start of a run adds to metrics.jsonl.

    A start first puts a file without the lines of lost steps in place of the one before: until then there is nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._old = _identity(path)
        self._old_lines = path.read_bytes().splitlines(keepends=True) if self._old else []
        self._place = 0
        self._lines: list[dict[str, Any]] = []

    def look(self) -> list[dict[str, Any]]:
        """This start's own lines so far."""
        if _identity(self._path) in (None, self._old):
            return []
        with open(self._path, "rb") as stream:
            stream.seek(self._place)
            new = stream.read()
        lines = new[: new.rfind(b"\n") + 1].splitlines(keepends=True)
        kept = 0
        if not self._place:
            # What was kept is some of the old lines in their order; a step that is done again takes another time.
            old = iter(self._old_lines)
            while kept < len(lines) and lines[kept] in old:
                kept += 1
        self._place += sum(map(len, lines))
        self._lines += map(json.loads, lines[kept:])
        return self._lines

    def of(self, kind: str) -> list[dict[str, Any]]:
        """This start's own lines of one kind."""
        return [line for line in self.look() if line["kind"] == kind]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics file; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _signal(process: psutil.Process, how: str) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        getattr(process, how)()


def _environment() -> dict[str, str]:
    """Ours, for ranks on the CPU over gloo that do not fight for cores."""
    inherited = {key: value for key, value in os.environ.items() if key not in LAUNCHER_VARIABLES}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', '')}"
    threads = inherited.get("OMP_NUM_THREADS", "1")
    return {**inherited, "PATH": path, "OMP_NUM_THREADS": threads, "DS_ACCELERATOR": "cpu"}
