"""A request to stop, as a flag that the ranks agree on at the next step.

In come signals (SIGTERM, SIGUSR1, SIGINT) to any rank, the death of the launcher, or a file `stop` in the run's folder
(`touch runs/NAME/stop`, under any launcher); out goes a flag. Nothing is done inside the handler: the loop carries the
flag in the all-reduce of the step or of the evaluation's batch, so every rank stops at the same place and saves what is
not saved. The file is removed when the run has ended; one that was made after the run's end stops the next start. The
run ends after the current step, not at once, so a step must be shorter than the grace period.

What the launcher does (deepspeed 0.19.8, one machine): `deepspeed` starts `deepspeed.launcher.launch`, which starts the
ranks and looks at them once a second. A signal to a rank reaches that rank only; all agree, save, and the whole command
ends with 0. A rank that ends early with 0 is a success to the launcher, which waits for the others; one that ends with
anything else makes it send SIGTERM to all (SIGKILL after 30 seconds) and end with that rank's status. The others
usually have no chance to save: they wait for the lost rank. SIGTERM to `deepspeed.launcher.launch` is passed on to the
ranks, which have 30 seconds before SIGKILL; they save and end with 0, and the launcher still ends with 1, which nothing
that runs inside a rank can change: send signals to a rank, or make the file, where the status counts. SIGTERM to
`deepspeed` itself kills it alone and leaves launcher and ranks running as orphans: that is why the ranks also watch
their launcher's parent, and look whether it had died before they could see it.

Ray Train calls the loop in a thread of its worker, and Python lets only the main thread, which there is Ray's, set and
run handlers: `launch/ray_train.py` has Ray call `listen_in_main_thread` there. Ray enters Python in that thread each
time it looks after the worker (every half second), and only then a handler runs.
"""

import base64
import json
import os
import signal
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil

from megadec.common.files import may_fail
from megadec.common.log import logger
from megadec.common.ranks import is_first

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STOP_FILE = "stop"
INIT = 1
DIED = (0, 0)
# DeepSpeed's launcher sets it for its ranks; torchrun and Ray do not.
LAUNCHER_VARIABLE = "CROSS_RANK"
_LAUNCHER_MODULE = "deepspeed.launcher.launch"
_WORLD_OPTION = "--world_info="
# DeepSpeed's launcher answers Ctrl-C with a traceback of its own.
_STOPPING = "the step under way is finished and saved; what the launcher prints meanwhile is no error of the run"

log = logger(__name__)
_in_threads: list["Interrupt"] = []


def listen_in_main_thread() -> None:
    """Let SIGTERM and SIGUSR1 reach interrupts that were entered in other threads. Call in the main thread, once.

    While there is no such interrupt a signal means what it meant before. SIGINT stays as it is: Ray cancels with it.
    """
    for number in (signal.SIGTERM, signal.SIGUSR1):
        former = signal.getsignal(number)

        def receive(number: int, frame: FrameType | None, former: Any = former) -> None:
            for interrupt in _in_threads:
                interrupt._receive(number, frame)
            if not _in_threads and callable(former):
                former(number, frame)

        signal.signal(number, receive)


class Interrupt:
    """Context manager that turns stop signals into `requested`; the former handlers come back at its end."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._ancestors = _launcher_ancestors()
        self._file: Path | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        else:
            _in_threads.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in _in_threads:
            _in_threads.remove(self)
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def watch_stop_file(self, folder: Path) -> None:
        """Stop also when there is a file `stop` in `folder`; one rank asks the file system for all."""
        self._file = folder / STOP_FILE if is_first() else None

    def remove_stop_file(self) -> None:
        """The run has stopped: the file, if that was it, is not to stop the next start."""
        if self._file is not None:
            with may_fail(f"{self._file} stays there, and will stop the next start"):
                self._file.unlink(missing_ok=True)

    @property
    def requested(self) -> bool:
        """Whether this rank wants the run to stop."""
        return self._wish() is not None

    @property
    def reason(self) -> str:
        """Why this rank wants to stop, for a log line; another rank's wish where it has none of its own."""
        return self._wish() or "another rank asked"

    def _wish(self) -> str | None:
        if self._signal is not None:
            return self._signal.name
        if self._file is not None and os.path.exists(self._file):  # Path.exists raises what a sick disk says
            return f"{self._file} was made"
        return "the launcher is gone" if self._ancestors not in (None, _ancestors()) else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = signal.Signals(number)
            if is_first():
                # A handler may run inside a write of the logger, which cannot be entered twice.
                begin = "\n" if os.isatty(2) else ""  # there, a progress bar stands in the line
                os.write(2, f"{begin}stopping ({self._signal.name}): {_STOPPING}\n".encode())
        if number == signal.SIGINT:
            # A second Ctrl-C ends the process at once, as a person at a terminal expects.
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _launcher_ancestors() -> tuple[int, int] | None:
    """(launcher, its parent) when DeepSpeed's launcher started this process; `DIED` when one of them is gone already.

    Other launchers pass signals on themselves.
    """
    ancestors = _ancestors()
    try:
        command, parent_command = (psutil.Process(one).cmdline() for one in ancestors)
    except psutil.Error:  # no permission: there is nothing to watch
        return None
    if _LAUNCHER_MODULE not in command:
        return DIED if ancestors[0] == INIT and LAUNCHER_VARIABLE in os.environ else None
    if any("deepspeed" in word for word in parent_command):
        return ancestors
    # On one machine nothing but `deepspeed` starts a launcher, and process 1 takes over whose parent has died.
    return DIED if ancestors[1] == INIT and _is_on_one_machine(command) else None


def _is_on_one_machine(command: Sequence[str]) -> bool:
    """Whether the command line of a launcher names this machine alone, as `deepspeed` writes it without a host file."""
    try:
        [world] = [word.removeprefix(_WORLD_OPTION) for word in command if word.startswith(_WORLD_OPTION)]
        return set(json.loads(base64.urlsafe_b64decode(world))) == {"localhost"}
    except ValueError:  # it has no such option, or one that nobody can read
        return False


def _ancestors() -> tuple[int, int]:
    """The process ids of the parent and of the parent's parent (0 where it cannot be read)."""
    parent = os.getppid()
    try:
        return parent, psutil.Process(parent).ppid()
    except psutil.Error:
        return parent, 0
