"""Completions and chats, whole or as server-sent events."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from megadec.common.errors import needs_extra
from megadec.serve.answer import Answer, Piece
from megadec.serve.bodies.generate import ChatBody, CompletionBody
from megadec.serve.choices import Logprobs, best, usage
from megadec.serve.http.read import SLOT, read, unless_gone
from megadec.serve.limits import RequestError
from megadec.serve.service import Service

with needs_extra("starlette", "serve"):
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse

# X-Accel-Buffering: a proxy such as nginx would collect the events otherwise.
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(frozen=True)
class _Request:
    """What is answered: the same for a whole answer and for a stream."""

    wanted: CompletionBody | ChatBody
    answers: list[Answer]
    pieces: AsyncIterator[tuple[Answer, Piece]]
    logprobs: Sequence[Logprobs | None]  # of each answer, where they are wanted
    head: dict[str, Any]

    @property
    def is_chat(self) -> bool:
        """Whether messages are answered."""
        return isinstance(self.wanted, ChatBody)

    def usage(self) -> dict[str, int]:
        """Of all answers so far, also those that are not given."""
        return usage(self.answers, self.wanted.made)


async def generate(request: Request, kind: type[CompletionBody | ChatBody]) -> Response:
    """Continue texts or a chat."""
    service = request.app.state.service
    wanted = await read(request, kind)
    slot = request.scope[SLOT] = service.scheduler.admit()
    answers = await service.answers(slot, wanted)
    asked = _request(service, wanted, answers, service.pieces(slot, answers))
    if wanted.stream:
        return StreamingResponse(_events(asked), headers=STREAM_HEADERS, media_type="text/event-stream")
    choices = await unless_gone(request, _choices(asked))
    return JSONResponse({**asked.head, "choices": choices, "usage": asked.usage()})


def _request(
    service: Service,
    wanted: CompletionBody | ChatBody,
    answers: list[Answer],
    pieces: AsyncIterator[tuple[Answer, Piece]],
) -> _Request:
    assert service.model is not None, "it answers"
    is_chat = isinstance(wanted, ChatBody)
    head = {
        "id": f"{'chatcmpl' if is_chat else 'cmpl'}-{secrets.token_hex(12)}",
        "object": "chat.completion" if is_chat else "text_completion",
        "created": int(time.time()),
        "model": service.model.name,
    }
    shown = wanted.logprobs is not None and wanted.logprobs is not False
    logprobs = [Logprobs(one, service.model.tokenizer, is_chat) if shown else None for one in answers]
    return _Request(wanted, answers, pieces, logprobs, head)


async def _choices(asked: _Request) -> list[dict[str, Any]]:
    """All choices, when all answers are whole."""
    texts, reasons = [""] * len(asked.answers), [""] * len(asked.answers)
    async for answer, (text, reason) in asked.pieces:
        texts[answer.index] += text
        reasons[answer.index] = reason or ""
    found = []
    places = {id(answer): place for place, answer in enumerate(asked.answers)}
    for answer in best(asked.answers, asked.wanted.made, asked.wanted.n):
        place = places[id(answer)]
        text, logprobs = texts[place], asked.logprobs[place]
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if asked.is_chat else {"text": text}
        taken = logprobs.take(True) if logprobs else None
        found.append(_choice(answer.index, said, taken, reasons[place]))
    return found


def _choice(index: int, said: dict[str, Any], logprobs: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": reason}


async def _events(asked: _Request) -> AsyncIterator[bytes]:
    """The same text as without a stream, as server-sent events; an error on the way is the last of them."""
    head = asked.head
    if asked.is_chat:
        head = {**head, "object": "chat.completion.chunk"}
        for answer in asked.answers:
            said: dict[str, Any] = {"delta": {"role": "assistant", "content": ""}}
            yield _event({**head, "choices": [_choice(answer.index, said, None, None)]})
    try:
        async for answer, (text, reason) in asked.pieces:
            said = {"delta": {"content": text} if text else {}} if asked.is_chat else {"text": text}
            logprobs = asked.logprobs[answer.index]
            taken = logprobs.take(reason is not None) if logprobs else None
            yield _event({**head, "choices": [_choice(answer.index, said, taken, reason)]})
    except RequestError as error:
        yield _event(error.body())
        return
    options = asked.wanted.stream_options
    if options is not None and options.include_usage:
        yield _event({**head, "choices": [], "usage": asked.usage()})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
