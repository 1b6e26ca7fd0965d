"""The document names all routes, and what they take and give is as it says."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from megadec.decoding.paged import PagedDecoder
from megadec.export.read.load import load_source
from megadec.serve.http.openapi import OPERATIONS, document
from megadec.serve.limits import Limits
from megadec.serve.load import ServedClassifier, ServedModel
from megadec.serve.template import PlainTemplate
from tests.support.sources import random_source

pytest.importorskip("prometheus_client")
pytest.importorskip("starlette")
pytest.importorskip("jsonschema")

import jsonschema

from megadec.serve.http.app import ROUTES
from megadec.serve.service import Service
from tests.unit.serve.test_service import Lengths, ask, part

CHAT = {"messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}], "max_tokens": 5}
BODIES: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/completions",
        {"prompt": ["小林", [5, 6]], "n": 2, "logprobs": 2, "echo": True, "max_tokens": 3, "stop": "。"},
    ),
    ("/v1/completions", {"prompt": "小", "logit_bias": {"5": -1}, "best_of": 2, "user": "x", "suffix": None}),
    ("/v1/completions", {"prompt": [5], "max_tokens": 0, "stop": ["一", "二"], "seed": None}),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "tools": []}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "text"}, "echo": False}),
    ("/v1/classify", {"input": "好"}),
    ("/v1/classify", {"texts": ["好", "坏"]}),
    ("/v1/embeddings", {"input": ["小林", [5, 6]]}),
    ("/v1/embeddings", {"input": "小林", "encoding_format": "base64", "dimensions": 48}),
    ("/tokenize", {"prompt": "小林", "return_token_strs": True}),
    ("/tokenize", {"messages": CHAT["messages"]}),
    ("/detokenize", {"tokens": [5, 6]}),
]
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {}),
    ("/v1/completions", {"prompt": []}),
    ("/v1/completions", {"prompt": "一", "tools": [{}]}),
    ("/v1/completions", {"prompt": "一", "stop": ""}),
    ("/v1/completions", {"prompt": "一", "unknown": 1}),
    ("/v1/completions", {"prompt": "一", "logit_bias": {"5": 200}}),
    ("/v1/chat/completions", {**CHAT, "response_format": {"type": "xml"}}),
    ("/v1/classify", {"texts": []}),
    ("/detokenize", {"tokens": [1.5]}),
]


@pytest.fixture(scope="module")
def service(tiny_tokenizer_path: Path) -> Iterator[Service]:
    decoder, tokenizer = load_source(random_source(tiny_tokenizer_path))
    served = ServedModel("m", "megadec", PagedDecoder(decoder), tokenizer, PlainTemplate(), {})
    made = Service(Limits(), served, ServedClassifier("c", Lengths(), {}))
    yield made
    made.scheduler.close()


def check(schema: str, value: Any) -> None:
    """Raises ValidationError where the value is not as the document has it."""
    found = document()
    jsonschema.validate(value, {"$ref": f"#/components/schemas/{schema}", "components": found["components"]})


def model_of(path: str, place: int) -> str:
    model = OPERATIONS[path][place]
    assert isinstance(model, type)
    return model.__name__


def test_the_document_is_an_openapi_of_all_routes() -> None:
    pytest.importorskip("openapi_spec_validator").validate(document())
    assert set(document()["paths"]) == {route.path for route in ROUTES}
    for route in ROUTES:
        methods = {method.upper() for method in document()["paths"][route.path]}
        assert methods == route.methods - {"HEAD"}


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_what_the_document_allows_is_answered_as_it_says(service: Service, path: str, body: dict[str, Any]) -> None:
    check(model_of(path, 1), body)
    status, answer = ask(service, path, [part(body)])
    assert status == 200, answer
    check(model_of(path, 2), answer)


@pytest.mark.parametrize(("path", "body"), WRONG)
def test_what_the_document_does_not_allow_is_refused_as_it_says(
    service: Service, path: str, body: dict[str, Any]
) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(model_of(path, 1), body)
    status, answer = ask(service, path, [part(body)])
    assert status == 400
    check("Refused", answer)


def test_what_is_asked_without_a_body_is_as_the_document_says(service: Service) -> None:
    for path, route in (("/v1/models", "/v1/models"), ("/v1/models/m", "/v1/models/{name}"), ("/healthz", "/healthz")):
        status, answer = ask(service, path, [], method="GET")
        assert status == 200
        check(model_of(route, 2), answer)
    assert ask(service, "/openapi.json", [], method="GET") == (200, document())
