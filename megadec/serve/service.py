"""The service without HTTP: a checked request in, an answer that runs or a RequestError out.

In: the opened models and the limits. Out: events of answers, labels of texts, what `/v1/models` and `/healthz` say.
Tokenizing happens in a thread of the pool and computing in the scheduler's, so that the event loop only moves messages.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from megadec.common.errors import InputError
from megadec.decoding.generate import Continuation
from megadec.serve.answer import Answer, Classification, End, Event, Labelled, Piece
from megadec.serve.limits import Limits, RequestError
from megadec.serve.metrics import Metrics
from megadec.serve.open import ServedClassifier, ServedModel
from megadec.serve.request import ClassifyRequest, GenerateRequest
from megadec.serve.scheduler import Scheduler, Ticket
from megadec.serve.wire import Usage


class Mailbox:
    """Events from the computing thread to a coroutine."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def give(self, event: Event) -> None:
        """Called in the computing thread."""
        self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self) -> Event:
        """The next event. Raises RequestError where that is the event."""
        event = await self._events.get()
        if isinstance(event, RequestError):
            raise event
        return event


class RunningAnswer:
    """An answer that was taken on; iterate `events` once, and close it to free the answer's place."""

    def __init__(self, service: Service, answer: Answer, ticket: Ticket, mailbox: Mailbox, prompt_tokens: int) -> None:
        self._service = service
        self._answer = answer
        self._ticket = ticket
        self._mailbox = mailbox
        self._prompt_tokens = prompt_tokens

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        return Usage(self._prompt_tokens, self._answer.tokens)

    async def events(self) -> AsyncGenerator[Piece | End, None]:
        """Text as it comes, then End. Raises RequestError when the answer cannot be finished."""
        try:
            while True:
                event = await self._mailbox.next()
                assert isinstance(event, Piece | End)
                yield event
                if isinstance(event, End):
                    return
        finally:
            self._service.scheduler.cancel(self._ticket)
            self._service.metrics.answer(self._answer)


class Service:
    """What a server does. `close` it in the end."""

    def __init__(self, limits: Limits, model: ServedModel | None, classifier: ServedClassifier | None) -> None:
        self.limits = limits
        self.scheduler = Scheduler(limits)
        self.metrics = Metrics(self.scheduler)
        self._model = model
        self._classifier = classifier
        self._started = int(time.time())

    def close(self) -> None:
        """End all answers and the computing thread."""
        self.scheduler.close()

    def model_name(self) -> str:
        """The language model's name. Raises RequestError where there is none."""
        return self._language_model(None).name

    async def answer(self, wanted: GenerateRequest) -> RunningAnswer:
        """Take on a request. Raises RequestError when it does not fit the model, or the queue is full."""
        served = self._language_model(wanted.model)
        ids, stops = await asyncio.to_thread(_prompt_of, served, wanted)
        sampling = dataclasses.replace(wanted.sampling, max_new_tokens=self._max_tokens(served, wanted, len(ids)))
        tokenizer = served.tokenizer
        try:
            continuation = Continuation(
                served.model,
                ids,
                sampling,
                tokenizer.eos_id,
                min(tokenizer.vocabulary_size, served.model.vocabulary_size),
            )
        except InputError as error:
            raise RequestError(str(error), parameter="prompt", code="invalid_value") from error
        mailbox = Mailbox()
        answer = Answer(continuation, tokenizer, stops, mailbox.give, self.metrics.token)
        ticket = self.scheduler.submit(answer, self.limits.request_seconds)
        self.metrics.prompt(len(ids))
        return RunningAnswer(self, answer, ticket, mailbox, len(ids))

    async def classify(self, wanted: ClassifyRequest) -> tuple[str, Sequence[Mapping[str, float]]]:
        """The classifier's name and, for each text, label -> probability. Raises RequestError."""
        served = self._classifier
        if served is None:
            raise _absent("classifier", "--model")
        _check_name(wanted.model, served.name)
        mailbox = Mailbox()
        job = Classification(served.classifier, wanted.texts, mailbox.give)
        ticket = self.scheduler.submit(job, self.limits.request_seconds)
        try:
            event = await mailbox.next()
        finally:
            self.scheduler.cancel(ticket)
        assert isinstance(event, Labelled)
        self.metrics.texts(len(wanted.texts))
        return served.name, event.probabilities

    def models(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        found = []
        head = {"object": "model", "created": self._started, "owned_by": "megadec"}
        if (served := self._model) is not None:
            found.append(
                {
                    "id": served.name,
                    **head,
                    "task": "language_model",
                    "format": served.kind,
                    "max_position_embeddings": self.max_position_embeddings(served),
                    "chat_template": served.template.name,
                    "note": CHAT_NOTES[served.template.name],
                    "source": dict(served.provenance),
                }
            )
        if self._classifier is not None:
            labels = list(self._classifier.classifier.labels)
            found.append({"id": self._classifier.name, **head, "task": "classification", "labels": labels})
        return found

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether requests are taken on, and what to show."""
        healthy = self.scheduler.healthy
        shown = {"status": "ok" if healthy else "stopping", "running": self.scheduler.running}
        return healthy, {**shown, "waiting": self.scheduler.waiting}

    def max_position_embeddings(self, served: ServedModel) -> int:
        """The most tokens of a prompt and its answer together."""
        return min(
            served.model.max_position_embeddings,
            self.limits.max_position_embeddings or served.model.max_position_embeddings,
        )

    def _language_model(self, name: str | None) -> ServedModel:
        if self._model is None:
            raise _absent("language model", "--classifier")
        _check_name(name, self._model.name)
        return self._model

    def _max_tokens(self, served: ServedModel, wanted: GenerateRequest, prompt_tokens: int) -> int:
        context = self.max_position_embeddings(served)
        room = context - prompt_tokens
        asked = wanted.max_tokens
        if room >= (asked or 1):
            return asked or min(room, self.limits.answer_tokens or room)
        of_answer = f"{wanted.max_tokens_name}={asked}" if asked else "an answer of 1"
        raise RequestError(
            f"a prompt of {prompt_tokens} tokens and {of_answer} do not fit into the context of {context} tokens",
            parameter=wanted.max_tokens_name if room > 0 else wanted.prompt_name,
            code="context_length_exceeded",
        )


CHAT_NOTES = {
    "plain": "a base model: it continues text and is not tuned for chat; /v1/chat/completions writes the messages as "
    "lines (系统：, 用户：, 助手：) and lets it continue the last",
    "own": "/v1/chat/completions uses the chat template of the model's folder",
}


def _prompt_of(served: ServedModel, wanted: GenerateRequest) -> tuple[list[int], tuple[str, ...]]:
    """The ids to continue and the texts to stop at."""
    prompt, tokenizer = wanted.prompt, served.tokenizer
    if isinstance(prompt, str):
        return [tokenizer.bos_id, *tokenizer.encode(prompt)], wanted.stop
    if wanted.prompt_name == "messages":
        messages = [part for part in prompt if not isinstance(part, int)]
        return served.template.ids(messages, tokenizer), (*wanted.stop, *served.template.stops)
    return [part for part in prompt if isinstance(part, int)], wanted.stop


def _check_name(asked: str | None, name: str) -> None:
    if asked not in (None, name):
        raise RequestError(
            f"the model {asked!r} is not served here; this route serves {name!r}",
            status=404,
            parameter="model",
            code="model_not_found",
        )


def _absent(what: str, option: str) -> RequestError:
    return RequestError(
        f"this server has no {what}: it was started with {option} only", status=404, code="model_not_found"
    )
