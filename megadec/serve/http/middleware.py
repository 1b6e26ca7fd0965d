"""Around all routes: who may ask, what is counted, and a slot that is always given back."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from megadec.common.errors import needs_extra
from megadec.serve.access import Access
from megadec.serve.http.errors import refused
from megadec.serve.http.read import SLOT
from megadec.serve.limits import RequestError
from megadec.serve.service import Service

with needs_extra("starlette", "serve"):
    import anyio
    from starlette.datastructures import Headers
    from starlette.requests import ClientDisconnect, Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

GONE_STATUS = 499  # nginx's number for a client that went before the end of its answer
# A client that reads nothing for so long is as good as gone.
STALLED_SECONDS = 60.0


@dataclass(frozen=True)
class AccessMiddleware:
    """Before all routes: a request that a page of elsewhere made a browser send is refused."""

    app: ASGIApp
    access: Access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers, answer = Headers(scope=scope), self.app
        try:
            self.access.check(headers.get("host"), headers.get("origin"))
        except RequestError as error:
            answer = await refused(Request(scope), error)
        await answer(scope, receive, send)


@dataclass(frozen=True)
class RequestMiddleware:
    """Around all routes: counts each request by how it ended, and frees its slot whatever happens."""

    app: ASGIApp
    service: Service
    paths: Collection[str]  # of the routes; all others are counted as one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; a client that has gone, or reads nothing, is no error."""
        status, is_whole = 0, False

        async def send_in_time(message: Message) -> None:
            nonlocal status, is_whole
            status = message.get("status", status)
            with anyio.fail_after(STALLED_SECONDS):
                await send(message)
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        metrics, began = self.service.metrics, time.monotonic()
        try:
            with metrics.in_flight.track_inprogress():
                await self.app(scope, receive, send_in_time)
        except (ClientDisconnect, TimeoutError):
            pass
        except Exception:
            status, is_whole = 500, True
            raise
        finally:
            if SLOT in scope:
                self.service.scheduler.leave(scope[SLOT])
            route = scope["path"] if scope["path"] in self.paths else "other"
            metrics.request(route, status if is_whole else GONE_STATUS, began)
