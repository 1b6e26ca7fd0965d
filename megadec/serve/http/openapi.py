"""`/openapi.json`: the routes as an OpenAPI 3.1 document, made from the models that check bodies."""

from functools import cache
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

import megadec
from megadec.serve.bodies.generate import ChatBody, CompletionBody
from megadec.serve.bodies.texts import ClassifyBody, DetokenizeBody, EmbedBody, TokenizeBody
from megadec.serve.http.responses import (
    Chat,
    Classified,
    Completion,
    Detokenized,
    Embedded,
    Health,
    Refused,
    ServedEntry,
    ServedList,
    Tokenized,
)

REF = "#/components/schemas/{model}"


class Operation(NamedTuple):
    """What a route takes and gives: a model as JSON, or a media type."""

    summary: str
    body: type[BaseModel] | None
    answer: type[BaseModel] | str
    streams: bool = False


OPERATIONS = {
    "/v1/completions": Operation("Continue or score texts", CompletionBody, Completion, True),
    "/v1/chat/completions": Operation("Continue a chat", ChatBody, Chat, True),
    "/v1/classify": Operation("Label texts", ClassifyBody, Classified),
    "/v1/embeddings": Operation("Vectors of texts", EmbedBody, Embedded),
    "/tokenize": Operation("The ids of a text", TokenizeBody, Tokenized),
    "/detokenize": Operation("The text of ids", DetokenizeBody, Detokenized),
    "/v1/models": Operation("What is served", None, ServedList),
    "/v1/models/{name}": Operation("One of what is served", None, ServedEntry),
    "/healthz": Operation("Whether requests are taken on and answered", None, Health),
    "/metrics": Operation("Numbers for Prometheus", None, "text/plain"),
    "/openapi.json": Operation("This document", None, "application/json"),
    "/": Operation("A page for people", None, "text/html"),
}


@cache
def document() -> dict[str, Any]:
    """The document. What is checked beyond a schema (two names of one limit, say) is in the text of the 400 alone."""
    models: dict[type[BaseModel], None] = {Refused: None}
    for operation in OPERATIONS.values():
        models |= {one: None for one in (operation.body, operation.answer) if isinstance(one, type)}
    _, definitions = models_json_schema([(one, "validation") for one in models], ref_template=REF)
    return {
        "openapi": "3.1.0",
        "info": {"title": "megadec", "version": megadec.__version__},
        "paths": {path: {"post" if one.body else "get": _operation(path, one)} for path, one in OPERATIONS.items()},
        "components": {"schemas": definitions["$defs"]},
    }


def _operation(path: str, operation: Operation) -> dict[str, Any]:
    answer: dict[str, Any] = {"application/json": {"schema": _ref(operation.answer)}}
    if isinstance(operation.answer, str):
        answer = {operation.answer: {"schema": {"type": "object" if "json" in operation.answer else "string"}}}
    if operation.streams:
        answer["text/event-stream"] = {}  # OpenAPI 3.1 has no schema for the events of a stream
    refused = {"description": "Refused, or failed; with the reason", "content": _content(Refused)}
    found: dict[str, Any] = {
        "operationId": path.strip("/").replace("/", "_").replace(".", "_").replace("{name}", "one") or "page",
        "summary": operation.summary,
        "responses": {"200": {"description": "Done", "content": answer}, "default": refused},
    }
    if path == "/healthz":
        found["responses"]["503"] = {"description": "Nothing is answered now", "content": _content(Health)}
    if operation.body is not None:
        found["requestBody"] = {"required": True, "content": _content(operation.body)}
    if "{name}" in path:
        found["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    return found


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(model)}}


def _ref(model: type[BaseModel] | str) -> dict[str, str]:
    return {} if isinstance(model, str) else {"$ref": REF.format(model=model.__name__)}
