"""Plain ASGI: reading a body within its limit, seeing that a client has gone, sending events and refusals.

In: `receive` and `send` of an ASGI server. Out: bytes, or messages sent. Below the framework, since a framework reads a
body before it can say no, and notices a client that has gone only when it writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, MutableMapping, Sequence
from typing import Any, TypeAlias, TypeVar

from megadec.common.log import logger
from megadec.serve.limits import RequestError
from megadec.serve.wire import json_bytes

T = TypeVar("T")
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Header: TypeAlias = tuple[bytes, bytes]

log = logger(__name__)
GONE_STATUS = 499  # nginx's number for a client that went before the end of its answer

# A client that is refused while it still sends its body sees the answer only if its sending does not fail: so much more
# is read and thrown away.
DRAINED_BYTES = 2**26
DRAIN_SECONDS = 5.0
# A client that reads nothing for so long is as good as gone.
STALLED_SECONDS = 60.0


class ClientGone(Exception):  # noqa: N818 -- an event that ends the work, not an error of anybody
    """The client has closed its connection; nobody reads an answer."""


async def read_body(scope: Scope, receive: Receive, most_bytes: int) -> bytes:
    """The body. Raises RequestError 413 at the first byte too many, or before the first where the header says so."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > most_bytes:
            raise _too_large(int(value), most_bytes)
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > most_bytes:
            raise _too_large(len(body), most_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def _too_large(found: int, most_bytes: int) -> RequestError:
    return RequestError(
        f"the body has {found} bytes or more; this server reads at most {most_bytes}", status=413, code="body_too_large"
    )


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of `work`; ended, and ClientGone raised, as soon as the client closes its connection.

    The body must have been read.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A response of server-sent events, which ends at once when the client goes."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events. Raises ClientGone."""
        await unless_gone(self._send_all(send), receive)

    async def _send_all(self, send: Send) -> None:
        # X-Accel-Buffering: a proxy such as nginx would collect the events otherwise.
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        ]
        async with contextlib.aclosing(self._events) as events:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in events:
                try:
                    async with asyncio.timeout(STALLED_SECONDS):
                        await send({"type": "http.response.body", "body": event, "more_body": True})
                except TimeoutError as error:
                    raise ClientGone from error
        await send({"type": "http.response.body", "body": b""})


class Response:
    """A whole response."""

    def __init__(
        self, content: bytes, *, status: int = 200, kind: str = "application/json", headers: Sequence[Header] = ()
    ) -> None:
        self._content = content
        self._status = status
        size = str(len(content)).encode()
        self._headers = [(b"content-type", kind.encode()), (b"content-length", size), *headers]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; behind the refusal of a body that is too large, read on a little while."""
        cut = self._status == 413
        headers = [*self._headers, (b"connection", b"close")] if cut else self._headers
        body = b"" if scope["method"] == "HEAD" else self._content
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": cut})
        if cut:
            await _drain(receive)
            await send({"type": "http.response.body", "body": b""})


def json_response(value: Any, status: int = 200) -> Response:
    """A value as JSON."""
    return Response(json_bytes(value), status=status)


def refusal(error: RequestError) -> Response:
    """A RequestError as OpenAI's API gives errors."""
    wait = error.retry_after_seconds
    headers = [] if wait is None else [(b"retry-after", str(wait).encode())]
    return Response(json_bytes(error.body()), status=error.status, headers=headers)


async def _drain(receive: Receive) -> None:
    drained, end = 0, time.monotonic() + DRAIN_SECONDS
    while drained < DRAINED_BYTES and (left := end - time.monotonic()) > 0:
        try:
            message = await asyncio.wait_for(receive(), left)
        except TimeoutError:
            return
        drained += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


class Guard:
    """Around the whole application: counts each request, and turns what escapes from a route into an answer.

    `begins` and `ends` are those of Metrics; `routes` are the paths that are counted by their name.
    """

    def __init__(
        self,
        app: App,
        *,
        routes: Collection[str],
        begins: Callable[[], float],
        ends: Callable[[str, int, float], None],
    ) -> None:
        self._app = app
        self._routes = routes
        self._begins = begins
        self._ends = ends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def note(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = self._begins()
        try:
            await self._app(scope, receive, note)
        except (ClientGone, asyncio.CancelledError):
            status = GONE_STATUS
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not status:
                await refusal(RequestError("the server failed", status=500, code="internal_error"))(
                    scope, receive, note
                )
            status = 500
        finally:
            self._ends(scope["path"] if scope["path"] in self._routes else "other", status, began)
