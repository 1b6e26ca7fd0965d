"""Processes that belong together: what a launcher has started, and whatever became of it."""

import os
import socket

import psutil


def session_of(session: int) -> list[psutil.Process]:
    """The living processes of a session (setsid), by its leader's process id; orphans included."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return found


def free_port() -> int:
    """A TCP port of this machine that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
