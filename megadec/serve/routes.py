"""The service over HTTP, in OpenAI's shapes: a Starlette application.

What Starlette lacks is written here: a limit for bodies, and work that ends with the client that wanted it.
"""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from megadec.common.errors import needs_extra
from megadec.serve.access import Access
from megadec.serve.answer import Answer, Piece
from megadec.serve.limits import RequestError
from megadec.serve.requests import ChatBody, ClassifyBody, CompletionBody, parse
from megadec.serve.service import Service

with needs_extra("starlette", "serve"):
    import anyio
    from starlette.applications import Starlette
    from starlette.datastructures import Headers
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

T = TypeVar("T", bound=BaseModel)
R = TypeVar("R")

SLOT = "megadec.slot"  # in a request's scope
GONE_STATUS = 499  # nginx's number for a client that went before the end of its answer
# A client that is refused while it still sends its body sees the answer only if its sending does not fail: so much more
# is read and thrown away.
DRAINED_BYTES = 2**26
DRAIN_SECONDS = 5.0
# A client that reads nothing for so long is as good as gone.
STALLED_SECONDS = 60.0
PAGE_FILE = Path(__file__).with_name("page.html")
# The page is one file: nothing is loaded from elsewhere, and nothing is sent elsewhere.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:",
    "x-content-type-options": "nosniff",
}
# X-Accel-Buffering: a proxy such as nginx would collect the events otherwise.
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def build_app(service: Service, access: Access) -> Starlette:
    """The application in front of `service`."""
    cors = Middleware(CORSMiddleware, allow_origins=access.origins, allow_methods=["*"], allow_headers=["*"])
    app = Starlette(
        routes=ROUTES,
        middleware=[
            Middleware(RequestMiddleware, service=service),
            Middleware(AccessMiddleware, access=access),
            *([cors] if access.origins else []),  # what a browser has to be told
        ],
        exception_handlers={RequestError: _refused, HTTPException: _unrouted, Exception: _failed},
    )
    app.state.service = service
    return app


async def generate(request: Request, kind: type[CompletionBody | ChatBody]) -> Response:
    """Continue a text or a chat."""
    service = request.app.state.service
    wanted = await _read(request, kind)
    slot = request.scope[SLOT] = service.scheduler.admit()
    answer = await service.answer(slot, wanted)
    pieces = service.pieces(slot, answer)
    is_chat = isinstance(wanted, ChatBody)
    head = {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": service.model.name,
    }
    if wanted.stream:
        include_usage = wanted.stream_options is not None and wanted.stream_options.include_usage
        events = _events(answer, pieces, head, is_chat, include_usage)
        return StreamingResponse(events, headers=STREAM_HEADERS, media_type="text/event-stream")
    text, reason = await _unless_gone(request, _whole(pieces))
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if is_chat else {"text": text}
    return JSONResponse({**head, "choices": [_choice(said, reason)], "usage": answer.usage()})


async def classify(request: Request) -> Response:
    """Label texts."""
    service = request.app.state.service
    wanted = await _read(request, ClassifyBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    found = await _unless_gone(request, service.classify(slot, wanted))
    data = [
        {"index": index, "label": max(one, key=one.__getitem__), "probabilities": dict(one), "truncated": truncated}
        for index, (one, truncated) in enumerate(found)
    ]
    return JSONResponse({"object": "list", "model": service.classifier.name, "data": data})


async def models(request: Request) -> Response:
    """All models."""
    return JSONResponse({"object": "list", "data": request.app.state.service.models()})


async def model(request: Request) -> Response:
    """One model."""
    name = request.path_params["name"]
    for found in request.app.state.service.models():
        if found["id"] == name:
            return JSONResponse(found)
    raise RequestError(f"the model {name!r} is not served here", 404, "model_not_found")


async def health(request: Request) -> Response:
    """200 while requests are taken on and a token can be made."""
    service = request.app.state.service
    status, reason = 200, "ok"
    try:
        await service.check()
    except RequestError as error:
        status, reason = error.status, "stopping" if error.code == "shutting_down" else error.message
    shown = {"status": reason, "running": service.scheduler.running, "waiting": service.scheduler.waiting}
    return JSONResponse(shown, status)


async def metrics(request: Request) -> Response:
    """Prometheus' text."""
    return Response(request.app.state.service.metrics.text(), media_type="text/plain; version=0.0.4")


async def page(request: Request) -> Response:
    """The page for people."""
    return FileResponse(PAGE_FILE, headers=PAGE_HEADERS)


ROUTES = [
    Route("/v1/completions", partial(generate, kind=CompletionBody), methods=["POST"]),
    Route("/v1/chat/completions", partial(generate, kind=ChatBody), methods=["POST"]),
    Route("/v1/classify", classify, methods=["POST"]),
    Route("/v1/models", models),
    Route("/v1/models/{name}", model),
    Route("/healthz", health),
    Route("/metrics", metrics),
    Route("/", page),
]
PATHS = {route.path for route in ROUTES}


async def _read(request: Request, kind: type[T]) -> T:
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


async def _whole(pieces: AsyncIterator[Piece]) -> tuple[str, str | None]:
    found = [piece async for piece in pieces]
    return "".join(piece.text for piece in found), found[-1].reason


def _choice(said: dict[str, Any], reason: str | None) -> dict[str, Any]:
    return {"index": 0, **said, "logprobs": None, "finish_reason": reason}


async def _events(
    answer: Answer, pieces: AsyncIterator[Piece], head: dict[str, Any], is_chat: bool, include_usage: bool
) -> AsyncIterator[bytes]:
    """The same text as without a stream, as server-sent events; an error on the way is the last of them."""
    if is_chat:
        head = {**head, "object": "chat.completion.chunk"}
        yield _event({**head, "choices": [_choice({"delta": {"role": "assistant", "content": ""}}, None)]})
    try:
        async for text, reason in pieces:
            said = {"delta": {"content": text} if text else {}} if is_chat else {"text": text}
            yield _event({**head, "choices": [_choice(said, reason)]})
    except RequestError as error:
        yield _event(error.body())
        return
    if include_usage:
        yield _event({**head, "choices": [], "usage": answer.usage()})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, R]) -> R:
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


class TooLarge(JSONResponse):
    """The refusal of a body, behind which a little more of it is read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, read on, end it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        left = DRAINED_BYTES
        message: Message = {"more_body": True}
        with anyio.move_on_after(DRAIN_SECONDS):
            while left > 0 and message.get("more_body"):
                message = await receive()
                left -= len(message.get("body", b""))
        await send({"type": "http.response.body", "body": b""})


async def _refused(request: Request, error: Any) -> Response:
    """A RequestError as OpenAI's API gives errors."""
    if error.status == 413:
        return TooLarge(error.body(), error.status, {"connection": "close"})
    headers = {} if error.retry_after_seconds is None else {"retry-after": str(error.retry_after_seconds)}
    if error.status == 408:  # the rest of the body may still come, and is no request
        headers["connection"] = "close"
    return JSONResponse(error.body(), error.status, headers)


async def _unrouted(request: Request, error: Any) -> Response:
    headers = error.headers or {}
    refused = f"does not take {request.method}; it takes {headers.get('Allow')}"
    what = {404: "is no route of this server", 405: refused}
    message = f"{request.url.path} {what.get(error.status_code, error.detail)}"
    answer = await _refused(request, RequestError(message, error.status_code, "unknown_route"))
    answer.headers.update(headers)
    return answer


async def _failed(request: Request, error: Exception) -> Response:
    return await _refused(request, RequestError("the server failed", 500, "internal_error"))


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
            answer = await _refused(Request(scope), error)
        await answer(scope, receive, send)


@dataclass(frozen=True)
class RequestMiddleware:
    """Around all routes: counts each request by how it ended, and frees its slot whatever happens."""

    app: ASGIApp
    service: Service

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
            route = scope["path"] if scope["path"] in PATHS else "other"
            metrics.request(route, status if is_whole else GONE_STATUS, began)
