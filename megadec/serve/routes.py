"""What each route of the service does, between a Starlette request and a response.

In: requests. Out: responses in OpenAI's shapes. A route reads its own body, so that limits and messages are ours and a
client that goes is seen at once; FastAPI only finds the route.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Any

from megadec.serve.answer import End, Piece
from megadec.serve.asgi import EventStream, Response, json_response, read_body, unless_gone
from megadec.serve.limits import RequestError
from megadec.serve.request import GenerateRequest, chat_request, classify_request, completion_request
from megadec.serve.service import RunningAnswer, Service
from megadec.serve.values import read_object
from megadec.serve.wire import DONE, ChatShape, CompletionShape, event_bytes

PAGE_FILE = Path(__file__).with_name("page.html")
# The page is one file: nothing is loaded from elsewhere, and nothing is sent elsewhere.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
)


class Routes:
    """One method for each route; `request` is a Starlette request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._page = PAGE_FILE.read_bytes()

    async def completions(self, request: Any) -> Any:
        """Continue a text."""
        return await self._generate(request, completion_request, CompletionShape)

    async def chat(self, request: Any) -> Any:
        """Continue a chat."""
        return await self._generate(request, chat_request, ChatShape)

    async def classify(self, request: Any) -> Any:
        """Label texts."""
        wanted = classify_request(await self._body(request), self._service.limits.texts)
        name, found = await unless_gone(self._service.classify(wanted), request.receive)
        data = [
            {"index": index, "label": max(one, key=one.__getitem__), "probabilities": dict(one)}
            for index, one in enumerate(found)
        ]
        return json_response({"object": "list", "model": name, "data": data})

    async def models(self, request: Any) -> Any:
        """All models."""
        return json_response({"object": "list", "data": self._service.models()})

    async def model(self, request: Any) -> Any:
        """One model."""
        name = request.path_params["name"]
        for found in self._service.models():
            if found["id"] == name:
                return json_response(found)
        raise RequestError(f"the model {name!r} is not served here", status=404, code="model_not_found")

    async def health(self, request: Any) -> Any:
        """200 while requests are taken on."""
        healthy, shown = self._service.health()
        return json_response(shown, 200 if healthy else 503)

    async def metrics(self, request: Any) -> Any:
        """Prometheus' text."""
        return Response(self._service.metrics.text(), kind="text/plain; version=0.0.4; charset=utf-8")

    async def page(self, request: Any) -> Any:
        """The page for people."""
        headers = [(b"content-security-policy", PAGE_POLICY.encode()), (b"x-content-type-options", b"nosniff")]
        return Response(self._page, kind="text/html; charset=utf-8", headers=headers)

    async def _body(self, request: Any) -> dict[str, Any]:
        limits = self._service.limits
        try:
            async with asyncio.timeout(limits.request_seconds):
                return read_object(await read_body(request.scope, request.receive, limits.body_bytes))
        except TimeoutError as error:
            raise RequestError(
                f"the body did not arrive within {limits.request_seconds:.3g} seconds", status=408, code="timeout"
            ) from error

    async def _generate(
        self,
        request: Any,
        parse: Callable[[Mapping[str, Any]], GenerateRequest],
        kind: type[CompletionShape | ChatShape],
    ) -> Any:
        wanted = parse(await self._body(request))
        answer = await self._service.answer(wanted)
        shape = kind(self._service.model_name())
        if wanted.stream:
            return EventStream(_events(answer, shape, wanted.include_usage))
        return json_response(await unless_gone(_whole(answer, shape), request.receive))


async def _whole(answer: RunningAnswer, shape: CompletionShape | ChatShape) -> dict[str, Any]:
    text = ""
    async with contextlib.aclosing(answer.events()) as events:
        async for event in events:
            if isinstance(event, End):
                return shape.whole(text, event.reason, answer.usage)
            text += event.text
    raise AssertionError("an answer ends with End or RequestError")


async def _events(
    answer: RunningAnswer, shape: CompletionShape | ChatShape, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    """The same text as `_whole`, as server-sent events; an error on the way is the last of them."""
    async with contextlib.aclosing(answer.events()) as events:
        if (opening := shape.opening()) is not None:
            yield event_bytes(opening)
        try:
            async for event in events:
                if isinstance(event, Piece):
                    yield event_bytes(shape.chunk(event.text))
                else:
                    yield event_bytes(shape.chunk("", event.reason))
        except RequestError as error:
            yield event_bytes(error.body())
            return
    if include_usage:
        yield event_bytes(shape.usage_chunk(answer.usage))
    yield DONE
