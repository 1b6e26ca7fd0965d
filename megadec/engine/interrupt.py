"""A request to stop, as a flag that the ranks agree on at the next step.

In come signals (SIGTERM, SIGUSR1, SIGINT) to any rank, or the death of the launcher; out goes a flag. Nothing is done
inside the handler: the loop carries the flag in the step's all-reduce, so every rank stops after the same step and
saves. Trade-off: the run ends after the current step, not at once.

What the launcher does (deepspeed 0.19.8, one machine): `deepspeed` starts `deepspeed.launcher.launch`, which starts the
ranks. A signal to a rank reaches that rank only; all agree, save, and the whole command ends with 0. SIGTERM to
`deepspeed.launcher.launch` is passed on to the ranks, which have 30 seconds before SIGKILL; they save, and the launcher
ends with 1. SIGTERM to `deepspeed` itself kills it alone and leaves launcher and ranks running as orphans: that is why
the ranks also watch their launcher's parent.

Ray Train calls the loop in a thread of its worker, and Python gives signals to the main thread alone, which there is
Ray's: no handler is set, a signal keeps Ray's meaning (the worker ends, and is replaced), and the flag stays down.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from megadec.common.log import logger

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_LAUNCHER_MODULE = b"deepspeed.launcher.launch"

log = logger(__name__)


class Interrupt:
    """Context manager that turns stop signals into `requested`; the former handlers come back at its end."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._former: dict[signal.Signals, Any] = {}
        self._ancestors = _launcher_ancestors()

    def __enter__(self) -> Interrupt:
        handled = STOP_SIGNALS if threading.current_thread() is threading.main_thread() else ()
        for number in handled:
            self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether this rank wants the run to stop."""
        return self._signal is not None or self._launcher_gone()

    @property
    def reason(self) -> str:
        """Why this rank wants to stop, for a log line; another rank's wish where it has none of its own."""
        if self._signal is not None:
            return self._signal.name
        return "the launcher is gone" if self._launcher_gone() else "another rank asked"

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = signal.Signals(number)
        if number == signal.SIGINT:
            # A second Ctrl-C ends the process at once, as a person at a terminal expects.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _launcher_gone(self) -> bool:
        return self._ancestors is not None and self._ancestors != _ancestors()


def _launcher_ancestors() -> tuple[int, int] | None:
    """(launcher, its parent) when DeepSpeed's launcher started this process;

    Other launchers pass signals on themselves.
    """
    ancestors = _ancestors()
    try:
        command = Path(f"/proc/{ancestors[0]}/cmdline").read_bytes()
        parent_command = Path(f"/proc/{ancestors[1]}/cmdline").read_bytes()
    except OSError:  # not Linux, or no permission: there is nothing to watch
        return None
    return ancestors if _LAUNCHER_MODULE in command and b"deepspeed" in parent_command else None


def _ancestors() -> tuple[int, int]:
    """The process ids of the parent and of the parent's parent (0 where it cannot be read)."""
    parent = os.getppid()
    try:
        # The command name in brackets may hold blanks; the fields after it are: state, parent, ...
        fields = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return parent, 0
    return parent, int(fields[1])
