"""Processes that belong together: what a launcher has started, and whatever became of it."""

from __future__ import annotations

import os

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
