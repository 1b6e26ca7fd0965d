"""The application in this process: models that break, clients that go, and limits that the other tests do not set."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from megadec.common.tokenizer import Tokenizer
from megadec.serve.access import Access
from megadec.serve.limits import Limits
from megadec.serve.load import ServedClassifier, ServedModel
from megadec.serve.template import PlainTemplate

pytest.importorskip("prometheus_client")
pytest.importorskip("starlette")

from megadec.serve.http import middleware
from megadec.serve.http.app import build_app
from megadec.serve.service import Service

GONE = {"type": "http.disconnect"}


class Counting:
    """A model that goes through the ids from 300 on, and breaks at id 310."""

    max_position_embeddings = 64

    def __init__(self, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size

    def session(self) -> Self:
        return self

    def feed(self, ids: Sequence[int]) -> Tensor:
        if ids[-1] == 310:
            raise RuntimeError("secret")
        return torch.nn.functional.one_hot(torch.tensor(max(300, ids[-1] + 1)), self.vocabulary_size).double()


class Lengths:
    """A classifier of a text's length, which notes how many texts came at once."""

    labels = ("长", "短")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        return [len(text) > 28 for text in texts]

    def classify(self, texts: Sequence[str]) -> list[Mapping[str, float]]:
        self.batches.append(len(texts))
        return [{"长": len(text) / 100, "短": 1 - len(text) / 100} for text in texts]


@pytest.fixture
def make(tokenizer: Tokenizer) -> Iterator[Callable[..., Service]]:
    made: list[Service] = []

    def start(model: bool = True, classifier: bool = True, **limits: Any) -> Service:
        served = ServedModel(
            "m", "megadec", Counting(tokenizer.vocabulary_size), tokenizer, PlainTemplate(), {"step": 3}
        )
        labels = ServedClassifier("c", Lengths(), {"step": 4})
        made.append(Service(Limits(**limits), served if model else None, labels if classifier else None))
        return made[-1]

    yield start
    for service in made:
        service.scheduler.close()


def part(body: Any, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": more}


def ask(
    service: Service, path: str, messages: list[dict[str, Any]], send: Any = None, method: str = "POST"
) -> tuple[int, Any]:
    """(status, body) for a client that sends these messages, which are taken out, and then waits; 0 for no answer.

    send: takes the answer in the place of this function.
    """
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def keep(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    asyncio.run(build_app(service, Access())(scope, receive, send or keep))
    body = b"".join(message.get("body", b"") for message in sent)
    return (sent[0]["status"], json.loads(body)) if sent else (0, None)


def complete(service: Service, **body: Any) -> tuple[int, Any]:
    return ask(service, "/v1/completions", [part({"temperature": 0, **body})])


def counted(service: Service, path: str, status: int) -> bool:
    return f'megadec_requests_total{{route="{path}",status="{status}"}} 1.0' in service.metrics.text().decode()


def test_each_model_says_where_it_came_from(make: Callable[..., Service]) -> None:
    assert [(one["id"], one["source"]) for one in make().models()] == [("m", {"step": 3}), ("c", {"step": 4})]


def test_prompt_and_answer_fill_the_context_and_no_more(make: Callable[..., Service]) -> None:
    service = make()
    status, body = complete(service, prompt=[311] * 60, max_tokens=4)
    assert (status, body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (200, 4, "length")
    for prompt_tokens, max_tokens, parameter in ((60, 5, "max_tokens"), (64, 1, "prompt")):
        status, body = complete(service, prompt=[311] * prompt_tokens, max_tokens=max_tokens)
        assert (status, body["error"]["param"], body["error"]["code"]) == (400, parameter, "context_length_exceeded")
    _, body = complete(make(max_position_embeddings=10), prompt=[311] * 8, max_tokens=3)
    wanted = "a prompt of 8 tokens and max_tokens=3 do not fit into the context of 10 tokens"
    assert body["error"]["message"] == wanted, "the operator can allow less than the context"


def test_a_chat_without_a_number_ends_at_the_servers_limit(make: Callable[..., Service]) -> None:
    def chat(content: str) -> tuple[int, Any]:
        body = {"messages": [{"role": "user", "content": content}], "temperature": 0}
        return ask(make(answer_tokens=3), "/v1/chat/completions", [part(body)])

    assert chat("一")[1]["usage"]["completion_tokens"] == 3
    status, body = chat("一" * 100)
    assert (status, body["error"]["param"]) == (400, "messages")


def test_a_model_that_breaks_in_one_answer_goes_on_with_others(
    make: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    service = make()
    status, body = complete(service, prompt=[300], max_tokens=30)
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert "secret" not in str(body)
    assert complete(service, prompt=[311], max_tokens=30)[0] == 200


def test_what_escapes_from_a_route_is_an_answer_without_its_details(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service, sent = make(), []
    monkeypatch.delattr(Service, "answers")

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(AttributeError):  # which the server logs
        ask(service, "/v1/completions", [part({"prompt": ""})], send)
    assert sent[0]["status"] == 500
    assert json.loads(sent[1]["body"])["error"]["message"] == "the server failed"
    assert counted(service, "/v1/completions", 500)


def test_what_a_server_does_not_have_is_a_404(make: Callable[..., Service]) -> None:
    status, body = complete(make(model=False), prompt="")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert body["error"]["message"] == "this server has no language model: it was started with --classifier only"
    status, body = ask(make(classifier=False), "/v1/classify", [part({"texts": "一"})])
    assert (status, "no classifier" in body["error"]["message"]) == (404, True)


def test_texts_are_classified_a_few_a_turn_and_come_back_in_order_up_to_the_limit(make: Callable[..., Service]) -> None:
    service = make(texts=30)
    _, body = ask(service, "/v1/classify", [part({"texts": ["字" * size for size in range(1, 31)], "model": "c"})])
    assert [one["probabilities"]["长"] for one in body["data"]] == [size / 100 for size in range(1, 31)]
    assert [one["truncated"] for one in body["data"]] == [False] * 28 + [True] * 2, "what was left out is said"
    assert "megadec_truncated_texts_total 2.0" in service.metrics.text().decode()
    assert [(one["probs"], one["num_classes"]) for one in body["data"][:2]] == [([0.01, 0.99], 2), ([0.02, 0.98], 2)]
    assert len(service.classifier.classifier.batches) > 2
    status, body = ask(service, "/v1/classify", [part({"texts": ["一"] * 31})])
    assert (status, body["error"]["param"]) == (400, "texts")
    assert "at most 30" in body["error"]["message"]


def test_a_runtime_without_hidden_states_refuses_embeddings_by_its_name(make: Callable[..., Service]) -> None:
    status, body = ask(make(), "/v1/embeddings", [part({"input": "一"})])
    assert (status, body["error"]["code"]) == (501, "unsupported_runtime")
    assert "megadec runtime" in body["error"]["message"]


@pytest.mark.parametrize(
    ("how", "parameter"),
    [
        ({"prompt": [5], "logit_bias": {"100000": 1}}, "logit_bias"),
        ({"prompt": [5], "stop_token_ids": [100000]}, "stop_token_ids"),
        ({"prompt": [[5], [100000]]}, "prompt"),
        ({"prompt": [[5]] * 3, "n": 2}, "prompt"),
        ({"prompt": [5], "n": 6}, "n"),
    ],
)
def test_what_the_model_does_not_have_and_too_many_answers_are_refused_before_anything_is_computed(
    make: Callable[..., Service], how: dict[str, Any], parameter: str
) -> None:
    status, body = complete(make(sequences=5), **how)
    assert (status, body["error"]["param"]) == (400, parameter)


def test_a_body_must_arrive_in_time(make: Callable[..., Service]) -> None:
    status, body = ask(make(read_seconds=0.05), "/v1/completions", [part({}, more=True)])
    assert (status, body["error"]["code"]) == (408, "timeout")


def test_behind_a_refused_body_a_little_more_is_read(make: Callable[..., Service]) -> None:
    """A client that still sends would otherwise see its connection broken and not the answer."""
    messages = [part("x" * 1000, more=True), part("y", more=True), part("z"), part("of the next request")]
    status, body = ask(make(body_bytes=10), "/v1/completions", messages)
    assert (status, body["error"]["code"]) == (413, "body_too_large")
    assert "at most 10" in body["error"]["message"]
    assert messages == [part("of the next request")]


@pytest.mark.parametrize("messages", [[part({}, more=True), GONE], [part({"prompt": [311], "max_tokens": 60}), GONE]])
def test_a_client_that_goes_is_counted_as_gone(make: Callable[..., Service], messages: list[dict[str, Any]]) -> None:
    service = make()
    assert ask(service, "/v1/completions", messages) == (0, None)
    assert counted(service, "/v1/completions", 499)


def test_a_stream_to_a_client_that_reads_nothing_is_closed(
    make: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(middleware, "STALLED_SECONDS", 0.05)
    service = make()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    ask(service, "/v1/completions", [part({"prompt": [311], "stream": True})], send)
    assert counted(service, "/v1/completions", 499)
    while service.scheduler.running:
        pass
