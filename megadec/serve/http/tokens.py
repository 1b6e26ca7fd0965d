"""Tokens of a text and back, in vLLM's shapes, and vectors of texts in OpenAI's."""

import base64
import struct

from megadec.common.errors import needs_extra
from megadec.serve.bodies.texts import DetokenizeBody, EmbedBody, TokenizeBody
from megadec.serve.http.read import SLOT, read, unless_gone

with needs_extra("starlette", "serve"):
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response


async def tokenize(request: Request) -> Response:
    """The ids of a prompt or of messages."""
    service = request.app.state.service
    wanted = await read(request, TokenizeBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    ids, texts = await unless_gone(request, service.tokenize(slot, wanted))
    found = {"count": len(ids), "max_model_len": service.context, "tokens": ids}
    return JSONResponse({**found, "token_strs": texts if wanted.return_token_strs else None})


async def detokenize(request: Request) -> Response:
    """The text of ids."""
    service = request.app.state.service
    wanted = await read(request, DetokenizeBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    return JSONResponse({"prompt": await unless_gone(request, service.detokenize(slot, wanted))})


async def embed(request: Request) -> Response:
    """A vector for each text."""
    service = request.app.state.service
    wanted = await read(request, EmbedBody)
    slot = request.scope[SLOT] = service.scheduler.admit()
    vectors, tokens = await unless_gone(request, service.embed(slot, wanted))
    shown = map(_packed, vectors) if wanted.encoding_format == "base64" else vectors
    data = [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(shown)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "data": data, "model": service.model.name, "usage": usage})


def _packed(vector: list[float]) -> str:
    """float32, the lowest byte first, as base64."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
