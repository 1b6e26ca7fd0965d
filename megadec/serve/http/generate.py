"""Completions and chats, whole or as server-sent events."""

import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from megadec.common.errors import needs_extra
from megadec.serve.answer import Answer, Piece
from megadec.serve.http.read import SLOT, read, unless_gone
from megadec.serve.limits import RequestError
from megadec.serve.requests import ChatBody, CompletionBody

with needs_extra("starlette", "serve"):
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse

# X-Accel-Buffering: a proxy such as nginx would collect the events otherwise.
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def generate(request: Request, kind: type[CompletionBody | ChatBody]) -> Response:
    """Continue a text or a chat."""
    service = request.app.state.service
    wanted = await read(request, kind)
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
    text, reason = await unless_gone(request, _whole(pieces))
    said = {"message": {"role": "assistant", "content": text, "refusal": None}} if is_chat else {"text": text}
    return JSONResponse({**head, "choices": [_choice(said, reason)], "usage": answer.usage()})


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
