"""The service without HTTP: what fits is answered, what does not is refused, what breaks harms nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megadec.common.tokenizer import Tokenizer
from megadec.serve.answer import End
from megadec.serve.limits import Limits, RequestError
from megadec.serve.open import ServedClassifier, ServedModel
from megadec.serve.request import chat_request, classify_request, completion_request
from megadec.serve.service import Service
from megadec.serve.template import PlainTemplate

pytest.importorskip("prometheus_client")


class Counting:
    """A model that goes through the ids from 300 on, and breaks at id 310."""

    max_position_embeddings = 64

    def __init__(self, vocabulary_size: int) -> None:
        self.vocabulary_size = vocabulary_size

    def session(self) -> Counting:
        return self

    def feed(self, ids: Sequence[int]) -> Tensor:
        if ids[-1] == 310:
            raise RuntimeError("secret")
        return torch.nn.functional.one_hot(torch.tensor(max(300, ids[-1] + 1)), self.vocabulary_size).double()


class Even:
    """A classifier that knows nothing."""

    labels = ("甲", "乙")

    def classify(self, texts: Sequence[str]) -> list[Mapping[str, float]]:
        return [{"甲": 0.5, "乙": 0.5} for _ in texts]


@pytest.fixture
def make(tiny_tokenizer_path: Path) -> Iterator[Callable[..., Service]]:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    made: list[Service] = []

    def start(model: bool = True, classifier: bool = True, **limits: Any) -> Service:
        served = ServedModel("m", "megadec", Counting(tokenizer.vocabulary_size), tokenizer, PlainTemplate(), {})
        labels = ServedClassifier("c", Even())
        made.append(Service(Limits(**limits), served if model else None, labels if classifier else None))
        return made[-1]

    yield start
    for service in made:
        service.close()


def answer(service: Service, body: Mapping[str, Any], parse: Any = completion_request) -> tuple[int, str]:
    """(tokens, why it ended) of an answer."""

    async def whole() -> tuple[int, str]:
        running = await service.answer(parse({"temperature": 0, **body}))
        reasons = [event.reason async for event in running.events() if isinstance(event, End)]
        return running.usage.completion_tokens, reasons[0]

    return asyncio.run(whole())


def refused(service: Service, body: Mapping[str, Any], parse: Any = completion_request) -> RequestError:
    with pytest.raises(RequestError) as found:
        answer(service, body, parse)
    return found.value


def test_prompt_and_answer_fill_the_context_and_no_more(make: Callable[..., Service]) -> None:
    service = make()
    assert answer(service, {"prompt": [311] * 60, "max_tokens": 4}) == (4, "length")
    error = refused(service, {"prompt": [311] * 60, "max_tokens": 5})
    assert (error.parameter, error.code) == ("max_tokens", "context_length_exceeded")
    assert str(error) == "a prompt of 60 tokens and max_tokens=5 do not fit into the context of 64 tokens"
    assert refused(service, {"prompt": [311] * 64, "max_tokens": 1}).parameter == "prompt"


def test_the_operator_can_allow_less_than_the_context(make: Callable[..., Service]) -> None:
    assert "the context of 10 tokens" in str(
        refused(make(max_position_embeddings=10), {"prompt": [311] * 8, "max_tokens": 3})
    )


def test_a_chat_without_a_number_fills_the_context_or_the_servers_limit(make: Callable[..., Service]) -> None:
    chat = {"messages": [{"role": "user", "content": "一"}]}
    prompt_tokens = len(PlainTemplate().ids(chat_request(chat).prompt, make()._language_model(None).tokenizer))  # type: ignore[arg-type]
    assert answer(make(answer_tokens=3), chat, chat_request) == (3, "length")
    long = {"messages": [{"role": "user", "content": "一" * 100}]}
    assert refused(make(), long, chat_request).parameter == "messages"
    assert prompt_tokens < 64


def test_a_model_that_breaks_in_one_answer_goes_on_with_others(
    make: Callable[..., Service], caplog: pytest.LogCaptureFixture
) -> None:
    service = make()
    error = refused(service, {"prompt": [300], "max_tokens": 30})
    assert (error.status, error.code) == (500, "internal_error")
    assert "secret" not in str(error)
    assert answer(service, {"prompt": [311], "max_tokens": 30}) == (30, "length")
    assert service.health()[0]


def test_an_answer_that_nobody_reads_any_more_leaves(make: Callable[..., Service]) -> None:
    service = make()

    async def leave() -> None:
        running = await service.answer(completion_request({"prompt": [311], "max_tokens": 60, "temperature": 0}))
        events = running.events()
        await anext(events)
        await events.aclose()
        while service.scheduler.running:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 60))


def test_what_a_server_does_not_have_is_a_404(make: Callable[..., Service]) -> None:
    error = refused(make(model=False), {"prompt": ""})
    assert (error.status, str(error)) == (
        404,
        "this server has no language model: it was started with --classifier only",
    )
    with pytest.raises(RequestError, match="no classifier: it was started with --model only"):
        asyncio.run(make(classifier=False).classify(classify_request({"texts": "一"}, 9)))
    assert refused(make(), {"prompt": "", "model": "other"}).status == 404


def test_texts_are_labelled_and_models_listed(make: Callable[..., Service]) -> None:
    service = make()
    name, found = asyncio.run(service.classify(classify_request({"texts": ["一"] * 20, "model": "c"}, 20)))
    assert (name, len(found)) == ("c", 20)
    assert [(model["id"], model["task"]) for model in service.models()] == [
        ("m", "language_model"),
        ("c", "classification"),
    ]
    assert service.models()[1]["labels"] == ["甲", "乙"]
