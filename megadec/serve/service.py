"""The service without HTTP: a checked body in, pieces of an answer, labels or a RequestError out.

Tokenizing happens in a thread of the pool and computing in the scheduler's, so that the event loop only moves messages.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from megadec.common.errors import ExportError, InputError
from megadec.common.log import logger
from megadec.decoding.continuation import Continuation
from megadec.decoding.generate import continue_alone
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import batched
from megadec.serve.answer import Answer, Piece
from megadec.serve.decoding_loop import DecodingLoop
from megadec.serve.limits import Limits, RequestError
from megadec.serve.load import ServedClassifier, ServedModel
from megadec.serve.metrics import ServiceMetrics
from megadec.serve.requests import ChatBody, ClassifyBody, CompletionBody
from megadec.serve.scheduler import Scheduler, Slot

log = logger(__name__)

TEXTS_PER_TURN = 8
PROBE = "。"
# A model that has worked so shortly ago is not asked for a token only to know that it works.
PROBED_SECONDS = 5.0
# What takes longer is not slow any more.
TURN_SECONDS, TOKENIZING_SECONDS = 60.0, 10.0
CHAT_NOTES = {
    "plain": "a base model: it continues text and is not tuned for chat; /v1/chat/completions writes the messages as "
    "lines (系统：, 用户：, 助手：) and lets it continue the last",
    "own": "/v1/chat/completions uses the chat template of the model's folder",
}


class Service:
    """What a server does; it is to be closed in the end."""

    def __init__(self, limits: Limits, model: ServedModel | None, classifier: ServedClassifier | None) -> None:
        self.limits = limits
        self.model = model
        self.classifier = classifier
        self.scheduler = Scheduler(limits)
        self.decoding = None if model is None else DecodingLoop(batched(model.model), self.scheduler, limits.running)
        self._templates = ThreadPoolExecutor(1, "templates")
        self.metrics = ServiceMetrics(self.scheduler)
        self._started = int(time.time())

    def close(self) -> None:
        """End what computes, with the turn and the template that it is at."""
        self.scheduler.close()
        self._templates.shutdown(cancel_futures=True)
        if self.model is not None:
            self.model.template.close()

    async def check(self) -> None:
        """Return when a token (or a label) was made a moment ago, or can be made now. Raises RequestError 503."""
        if not self.scheduler.healthy:
            raise RequestError("the server is shutting down", 503, "shutting_down")
        try:
            if self.model is not None:
                await asyncio.wait_for(asyncio.to_thread(self.model.tokenizer.encode, PROBE), TOKENIZING_SECONDS)
            if self.scheduler.silent_seconds > TURN_SECONDS:
                raise TimeoutError
            if self.scheduler.idle_seconds > PROBED_SECONDS:
                await asyncio.wait_for(self.scheduler.compute(self.probe), TURN_SECONDS)
        except TimeoutError as error:
            raise RequestError("nothing is computed any more", 503, "stalled") from error
        except Exception as error:
            log.exception("the model does not work")
            raise RequestError("the model does not work", 503, "internal_error") from error

    def probe(self) -> None:
        """Make a token and a label. Raises what making them raises, and MegadecError for a token that is no number."""
        if self.model is not None:
            list(continue_alone(self.model.model, Continuation([self.model.tokenizer.bos_id], Sampling(1, 0))))
        if self.classifier is not None:
            [found] = self.classifier.classifier.classify([PROBE])
            if not all(map(math.isfinite, found.values())):
                raise ExportError(f"{self.classifier.name}: probabilities are not numbers, but {dict(found)}")

    async def answer(self, slot: Slot, wanted: CompletionBody | ChatBody) -> Answer:
        """What was asked for, before its first turn. Raises RequestError when it does not fit the model."""
        served = _named(self.model, wanted.model, "language model", "--classifier")
        # A chat's template is a program that came with the model: what it holds up are other chats alone.
        pool = self._templates if isinstance(wanted, ChatBody) else None
        prompt = asyncio.get_running_loop().run_in_executor(pool, _prompt, served, wanted)
        ids, stops = await self.scheduler.in_time(slot, prompt)
        how = wanted.model_dump(include={"temperature", "top_k", "top_p", "repetition_penalty", "seed"})
        sampling = Sampling(self._max_new_tokens(served, wanted, len(ids)), **how)
        tokenizer = served.tokenizer
        drawn_ids = min(tokenizer.vocabulary_size, served.model.vocabulary_size)
        try:
            continuation = Continuation(ids, sampling, tokenizer.end_ids, drawn_ids)
            continuation.check(served.model.vocabulary_size, served.model.max_position_embeddings)
        except InputError as error:
            raise RequestError(str(error), parameter="prompt") from error
        self.metrics.prompt_tokens.inc(len(ids))
        return Answer(continuation, tokenizer, stops, self.metrics.generated_tokens.inc)

    async def pieces(self, slot: Slot, answer: Answer) -> AsyncIterator[Piece]:
        """Text as it comes, then the reason. Raises RequestError when the answer cannot be finished."""
        assert self.decoding is not None
        try:
            async with contextlib.aclosing(self.decoding.follow(slot, answer.continuation)) as steps:
                async for _ in steps:
                    piece = answer.turn()
                    if piece.text:
                        yield Piece(piece.text)
                    if piece.reason is not None:
                        break
            yield Piece("", piece.reason)
        finally:
            self.metrics.answer(answer)

    async def classify(self, slot: Slot, wanted: ClassifyBody) -> list[tuple[Mapping[str, float], bool]]:
        """For each text, label -> probability, and whether a part of it was left out. Raises RequestError."""
        served = _named(self.classifier, wanted.model, "classifier", "--model")
        texts = wanted.texts
        if len(texts) > self.limits.texts:
            message = f"texts holds {len(texts)} texts; at most {self.limits.texts} are classified in one request"
            raise RequestError(message, parameter="texts")
        found: list[Mapping[str, float]] = []
        truncated = await self.scheduler.in_time(slot, asyncio.to_thread(served.classifier.truncated, texts))
        for first in range(0, len(texts), TEXTS_PER_TURN):
            part = texts[first : first + TEXTS_PER_TURN]
            found += await self.scheduler.turn(slot, partial(served.classifier.classify, part))
        self.metrics.texts.inc(len(texts))
        self.metrics.truncated_texts.inc(sum(truncated))
        return list(zip(found, truncated, strict=True))

    def models(self) -> list[dict[str, Any]]:
        """The entries of /v1/models."""
        found = []
        head = {"object": "model", "created": self._started, "owned_by": "megadec"}
        if (served := self.model) is not None:
            found.append(
                {
                    "id": served.name,
                    **head,
                    "task": "language_model",
                    "format": served.kind,
                    "max_position_embeddings": self._context(served),
                    "chat_template": served.template.name,
                    "note": CHAT_NOTES[served.template.name],
                    "source": dict(served.provenance),
                }
            )
        if self.classifier is not None:
            labels = list(self.classifier.classifier.labels)
            task = {"task": "classification", "labels": labels, "source": dict(self.classifier.provenance)}
            found.append({"id": self.classifier.name, **head, **task})
        return found

    def _context(self, served: ServedModel) -> int:
        """The most tokens of a prompt and its answer together."""
        most = served.model.max_position_embeddings
        return min(most, self.limits.max_position_embeddings or most)

    def _max_new_tokens(self, served: ServedModel, wanted: CompletionBody | ChatBody, prompt_tokens: int) -> int:
        newer = wanted.max_completion_tokens if isinstance(wanted, ChatBody) else None
        asked = newer or wanted.max_tokens
        context = self._context(served)
        room = context - prompt_tokens
        if room >= (asked or 1):
            return asked or min(room, self.limits.answer_tokens or room)
        name = "max_completion_tokens" if newer else "max_tokens"
        of_answer = f"{name}={asked}" if asked else "an answer of 1"
        message = f"a prompt of {prompt_tokens} tokens and {of_answer} do not fit into the context of {context} tokens"
        parameter = name if room > 0 else "messages" if isinstance(wanted, ChatBody) else "prompt"
        raise RequestError(message, 400, "context_length_exceeded", parameter)


def _prompt(served: ServedModel, wanted: CompletionBody | ChatBody) -> tuple[list[int], list[str]]:
    """The ids to continue and the texts to stop at."""
    if isinstance(wanted, ChatBody):
        return served.template.ids(wanted.messages, served.tokenizer), [*wanted.stop, *served.template.stops]
    if isinstance(wanted.prompt, list):
        return wanted.prompt, wanted.stop
    return served.tokenizer.prompt_ids(wanted.prompt), wanted.stop


def _named(served: Any, asked: str | None, what: str, other_option: str) -> Any:
    """`served`, if there is one and it has the name that was asked for. Raises RequestError 404."""
    if served is None:
        message = f"this server has no {what}: it was started with {other_option} only"
        raise RequestError(message, 404, "model_not_found")
    if asked not in (None, served.name):
        message = f"the model {asked!r} is not served here; this route serves {served.name!r}"
        raise RequestError(message, 404, "model_not_found", "model")
    return served
