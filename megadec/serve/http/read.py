"""The body of a request, and work that ends with the client that wanted it."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import BaseModel

from megadec.common.errors import needs_extra
from megadec.serve.bodies.body import parse
from megadec.serve.limits import RequestError

with needs_extra("starlette", "serve"):
    from starlette.requests import ClientDisconnect, Request

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

SLOT = "megadec.slot"  # in a request's scope


async def read(request: Request, kind: type[T]) -> T:
    """The body, checked. Raises RequestError; of one that is too large no more is read than the limit."""
    limits = request.app.state.service.limits
    body, size = bytearray(), int(request.headers.get("content-length", 0))
    try:
        async with asyncio.timeout(limits.read_seconds):
            if size <= limits.body_bytes:
                async for part in request.stream():
                    body += part
                    if len(body) > limits.body_bytes:
                        break
    except TimeoutError as error:
        message = f"the body did not arrive within {limits.read_seconds:.3g} seconds"
        raise RequestError(message, 408, "timeout") from error
    if max(size, len(body)) > limits.body_bytes:
        message = f"the body has {max(size, len(body))} bytes or more; this server reads at most {limits.body_bytes}"
        raise RequestError(message, 413, "body_too_large")
    return parse(kind, bytes(body))


async def unless_gone(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The result of `work`; ended, and ClientDisconnect raised, as soon as the client goes. A stream sees it itself."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        working.cancel()

    working, watching = asyncio.create_task(work), asyncio.create_task(watch())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done():
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()
