"""What clients may hold of the process: connections, the time to send a request, lines of the log.

A client that sends half a request costs an open file. It has a time to send the rest; and a new connection takes the
place of the one that owes the rest of a request the longest, so that who asks whole is answered however many owe.
"""

import asyncio
import json
import logging
import resource
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

from megadec.common.errors import ConfigError, needs_extra
from megadec.common.log import logger
from megadec.serve.limits import Limits, RequestError

with needs_extra("uvicorn", "serve"):
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

log = logger(__name__)

# Connections that the event loop accepts before it looks at what else there is to do.
ACCEPTED_AT_ONCE = 16
# Files that are open for a moment beside the connections: those accepted and not looked at yet, and our own.
SPARE_FILES = 4 * ACCEPTED_AT_ONCE + 16
LOGGED_LINES, LOGGED_SECONDS = 20, 60.0
OPEN_FILES = Path("/proc/self/fd")


def most_connections(limits: Limits) -> int:
    """Connections that there may be: `limits.connections`, within what the process may open.

    Raises ConfigError where that is none at all.
    """
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    opened = len(list(OPEN_FILES.iterdir())) if OPEN_FILES.is_dir() else SPARE_FILES
    room = allowed - opened - SPARE_FILES
    if room < 1:
        raise ConfigError(
            f"this process may open {allowed} files, of which {opened} are open; connections need {SPARE_FILES} more:"
            " raise the limit (ulimit -n)"
        )
    if room < limits.connections:
        log.info("at most %d connections, as this process may open %d files (ulimit -n)", room, allowed)
    return min(room, limits.connections)


class BoundedRate(logging.Filter):
    """Lets LOGGED_LINES lines of each logger through in LOGGED_SECONDS; the next one says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is within the rate."""
        now = time.monotonic()
        began, lines = self._windows.get(record.name, (now, 0))
        if now - began > LOGGED_SECONDS:
            if lines > LOGGED_LINES:
                record.msg, record.args = f"{record.getMessage()} ({lines - LOGGED_LINES} lines were left out)", ()
            began, lines = now, 0
        self._windows[record.name] = began, lines + 1
        return lines < LOGGED_LINES


def bound_logs() -> None:
    """Write what asyncio and uvicorn warn of as our own lines, all of them at a bounded rate."""
    handler = logger("megadec").handlers[0]
    handler.addFilter(BoundedRate())
    for name in ("asyncio", "uvicorn.error"):
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False


class Connections:
    """All connections, in the order in which they were last heard of. Used by the event loop alone."""

    def __init__(self, limits: Limits, most: int) -> None:
        self.read_seconds = limits.read_seconds
        self._most = most
        self._open: dict[Connection, None] = {}

    def add(self, connection: "Connection") -> bool:
        """Whether there is room, which the one that owes the rest of a request the longest makes."""
        if len(self._open) >= self._most:
            owing = next((one for one in self._open if one.owes_request), None)
            if owing is None:
                return False
            owing.close_now()
            self.remove(owing)
        self._open[connection] = None
        return True

    def heard_of(self, connection: "Connection") -> None:
        """It has sent something."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def remove(self, connection: "Connection") -> None:
        """It is closed."""
        self._open.pop(connection, None)


class Connection(H11Protocol):
    """uvicorn's connection with a deadline for what the server waits for, and a number of them that is bounded."""

    def __init__(self, *, connections: Connections, **uvicorns: Any) -> None:
        super().__init__(**uvicorns)
        self._all = connections
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def owes_request(self) -> bool:
        """Whether the client has not sent all of a request, or none yet."""
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give it a place, or say that there is none."""
        super().connection_made(transport)
        if self._all.add(self):
            self._wait_for_request()
        else:
            self._refuse(503, "queue_full", "the server is busy: every connection that it takes on is being answered")

    def connection_lost(self, exc: Exception | None) -> None:
        """Free its place."""
        self._all.remove(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of a request that has begun; its body is waited for where it is read."""
        if self.transport.is_closing():
            return
        self._all.heard_of(self)
        super().data_received(data)
        if self._is_waited_for:
            self._wait_for_request()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the rest of a body to which an answer was given before its end, not for ever."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._wait_for_request()

    def close_now(self) -> None:
        """Break the connection; what is being read from it ends as if the client had gone."""
        self.transport.abort()

    @property
    def _is_waited_for(self) -> bool:
        answered = self.cycle is not None and self.cycle.response_complete
        return self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and answered)

    def _wait_for_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(self._all.read_seconds, self._end_waiting)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_waiting(self) -> None:
        message = f"no whole request arrived within {self._all.read_seconds:.3g} seconds"
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self._refuse(408, "timeout", message)
        else:
            self.close_now()

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps(RequestError(message, status, code).body()).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        )
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
