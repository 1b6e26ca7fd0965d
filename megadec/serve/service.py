"""The service without HTTP: a checked body in, pieces of an answer, labels or a RequestError out.

Tokenizing happens in a thread of the pool and computing in the scheduler's, so that the event loop only moves messages.
"""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from megadec.common.errors import ExportError, InputError, MissingExtraError
from megadec.common.log import logger
from megadec.decoding.continuation import Continuation, TokenMask
from megadec.decoding.embed import Embedding
from megadec.decoding.generate import continue_alone
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import batched, check_ids
from megadec.serve.answer import Answer, Piece
from megadec.serve.bodies.generate import ChatBody, CompletionBody
from megadec.serve.bodies.texts import ClassifyBody, DetokenizeBody, EmbedBody, TokenizeBody
from megadec.serve.choices import token_text
from megadec.serve.decoding_loop import DecodingLoop
from megadec.serve.limits import Limits, RequestError
from megadec.serve.load import ServedClassifier, ServedModel
from megadec.serve.metrics import ServiceMetrics
from megadec.serve.scheduler import Scheduler, Slot

log = logger(__name__)

TEXTS_PER_TURN = 8
SAMPLED = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"}
SAMPLED |= {"logit_bias"}
ROOM_SECONDS = 0.02  # until it is seen again whether the cache has room
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

    async def answers(self, slot: Slot, wanted: CompletionBody | ChatBody) -> list[Answer]:
        """What was asked for, before its first turn: `made` answers to each prompt, in order.

        Raises RequestError when it does not fit the model.
        """
        served = _named(self.model, wanted.model, "language model", "--classifier")
        made = wanted.made
        count = made * (len(wanted.prompt) if isinstance(wanted, CompletionBody) else 1)
        if count > self.limits.sequences:
            message = f"{count} answers are asked for; at most {self.limits.sequences} are made in one request"
            raise RequestError(message, parameter="prompt" if count > made else "n")
        # A chat's template is a program that came with the model: what it holds up are other chats alone.
        pool = self._templates if isinstance(wanted, ChatBody) else None
        prompts = asyncio.get_running_loop().run_in_executor(pool, _prompts, served, wanted)
        all_ids, stops = await self.scheduler.in_time(slot, prompts)
        masks: Sequence[TokenMask | None] = [None] * count
        if (schema := wanted.answer_schema) is not None:
            masks = await self.scheduler.in_time(slot, asyncio.to_thread(_masks, served, schema, count))
        tokenizer = served.tokenizer
        drawn_ids = min(tokenizer.vocabulary_size, served.model.vocabulary_size)
        if wrong := [one for one in wanted.stop_token_ids if one >= drawn_ids]:
            message = f"stop_token_ids: id {wrong[0]} is not one of the model's {drawn_ids} ids"
            raise RequestError(message, parameter="stop_token_ids")
        found: list[Answer] = []
        for ids in all_ids:
            sampling = Sampling(self._max_new_tokens(served, wanted, len(ids)), **wanted.model_dump(include=SAMPLED))
            for number in range(made):
                continuation = Continuation(
                    ids,
                    dataclasses.replace(sampling, seed=wanted.seed + number),
                    {*(() if wanted.ignore_eos else tokenizer.end_ids), *wanted.stop_token_ids},
                    drawn_ids,
                    wanted.scored,
                    wanted.scores_prompt,
                    masks[len(found)],
                )
                _check(continuation, drawn_ids, served.model.max_position_embeddings)
                echo = isinstance(wanted, CompletionBody) and wanted.echo
                count_token = self.metrics.generated_tokens.inc
                found.append(Answer(continuation, tokenizer, stops, count_token, len(found), echo))
            self.metrics.prompt_tokens.inc(len(ids))
        return found

    async def pieces(self, slot: Slot, answers: Sequence[Answer]) -> AsyncIterator[tuple[Answer, Piece]]:
        """Text of each answer as it comes, the last with its reason. Raises RequestError when one is not finished."""
        assert self.decoding is not None
        left = list(answers)
        try:
            followed = self.decoding.follow(slot, [one.continuation for one in answers])
            async with contextlib.aclosing(followed) as steps:
                async for _ in steps:
                    for answer in list(left):
                        piece = answer.turn()
                        if piece.reason is not None:
                            left.remove(answer)
                            self.decoding.leave(answer.continuation)
                        if any(piece):
                            yield answer, piece
                    if not left:
                        break
        finally:
            for answer in answers:
                self.metrics.answer(answer)

    async def tokenize(self, slot: Slot, wanted: TokenizeBody) -> tuple[list[int], list[str]]:
        """The ids of a prompt or of messages, and their texts. Raises RequestError."""
        served = _named(self.model, wanted.model, "language model", "--classifier")
        pool = None if wanted.messages is None else self._templates
        ids = await self.scheduler.in_time(
            slot, asyncio.get_running_loop().run_in_executor(pool, _tokenize, served, wanted)
        )
        return ids, [token_text(served.tokenizer, one) for one in ids]

    async def detokenize(self, slot: Slot, wanted: DetokenizeBody) -> str:
        """The text of ids; bytes that are no character give U+FFFD. Raises RequestError for an id that is none."""
        served = _named(self.model, wanted.model, "language model", "--classifier")
        size = served.tokenizer.vocabulary_size
        if wrong := [one for one in wanted.tokens if one >= size]:
            message = f"tokens: id {wrong[0]} is not one of the model's {size} ids"
            raise RequestError(message, parameter="tokens")
        text: str = await self.scheduler.in_time(slot, asyncio.to_thread(served.tokenizer.decode, wanted.tokens))
        return text

    async def embed(self, slot: Slot, wanted: EmbedBody) -> tuple[list[list[float]], int]:
        """A vector for each input, of length 1, and the tokens of all. Raises RequestError."""
        served = _named(self.model, wanted.model, "language model", "--classifier")
        if not isinstance(served.model, PagedDecoder):
            message = f"embeddings are not made by the {served.kind} runtime, which gives no hidden states"
            raise RequestError(message, 501, "unsupported_runtime", "model")
        size = served.model.shape.hidden_size
        if wanted.dimensions not in (None, size):
            message = f"dimensions={wanted.dimensions} is not supported here: the model's vectors have {size}"
            raise RequestError(message, 400, "unsupported_parameter", "dimensions")
        if len(wanted.input) > self.limits.texts:
            message = f"input holds {len(wanted.input)} texts; at most {self.limits.texts} are embedded in one request"
            raise RequestError(message, parameter="input")
        inputs = await self.scheduler.in_time(slot, asyncio.to_thread(_inputs, served, wanted.input))
        for ids, _ in inputs:
            with _as_parameter("input"):
                check_ids(ids, served.model.vocabulary_size, self._context(served))
        vectors = []
        for ids, skipped in inputs:
            vectors.append(await self._embed(slot, Embedding(served.model, ids, skipped, wanted.pooling)))
        tokens = sum(len(ids) for ids, _ in inputs)
        self.metrics.prompt_tokens.inc(tokens)
        return vectors, tokens

    async def _embed(self, slot: Slot, embedding: Embedding) -> list[float]:
        try:
            while (vector := await self.scheduler.turn(slot, embedding.step)) is None:
                if not embedding.started:  # others hold the cache
                    await asyncio.sleep(ROOM_SECONDS)
            return vector
        finally:
            await self.scheduler.compute(embedding.close)

    async def classify(self, slot: Slot, wanted: ClassifyBody) -> list[tuple[Mapping[str, float], bool]]:
        """For each text, label -> probability, and whether a part of it was left out. Raises RequestError."""
        served = _named(self.classifier, wanted.model, "classifier", "--model")
        texts = wanted.listed
        if len(texts) > self.limits.texts:
            message = f"texts holds {len(texts)} texts; at most {self.limits.texts} are classified in one request"
            raise RequestError(message, parameter="texts" if wanted.texts else "input")
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

    @property
    def context(self) -> int:
        """The most tokens of a prompt and its answer together; 0 without a language model."""
        return 0 if self.model is None else self._context(self.model)

    def _context(self, served: ServedModel) -> int:
        """The most tokens of a prompt and its answer together."""
        most = served.model.max_position_embeddings
        return min(most, self.limits.max_position_embeddings or most)

    def _max_new_tokens(self, served: ServedModel, wanted: CompletionBody | ChatBody, prompt_tokens: int) -> int:
        newer = wanted.max_completion_tokens if isinstance(wanted, ChatBody) else None
        asked = wanted.max_tokens if newer is None else newer
        context = self._context(served)
        room = context - prompt_tokens
        if room >= (1 if asked is None else asked):
            return min(room, self.limits.answer_tokens or room) if asked is None else asked
        name = "max_completion_tokens" if newer else "max_tokens"
        of_answer = f"{name}={asked}" if asked is not None else "an answer of 1"
        message = f"a prompt of {prompt_tokens} tokens and {of_answer} do not fit into the context of {context} tokens"
        parameter = name if room > 0 else "messages" if isinstance(wanted, ChatBody) else "prompt"
        raise RequestError(message, 400, "context_length_exceeded", parameter)


def _prompts(served: ServedModel, wanted: CompletionBody | ChatBody) -> tuple[list[list[int]], list[str]]:
    """The ids of each prompt and the texts to stop at."""
    if isinstance(wanted, ChatBody):
        return [served.template.ids(wanted.messages, served.tokenizer)], [*wanted.stop, *served.template.stops]
    return [one if isinstance(one, list) else served.tokenizer.prompt_ids(one) for one in wanted.prompt], wanted.stop


def _inputs(served: ServedModel, texts: Sequence[str | list[int]]) -> list[tuple[list[int], int]]:
    """The ids of each input, and how many in front are none of its text."""
    prefix = len(served.tokenizer.prefix_ids)
    found = []
    for one in texts:
        ids = one if isinstance(one, list) else served.tokenizer.prompt_ids(one)
        found.append((ids, prefix if isinstance(one, str) and len(ids) > prefix else 0))
    return found


def _tokenize(served: ServedModel, wanted: TokenizeBody) -> list[int]:
    if wanted.messages is not None:
        return served.template.ids(wanted.messages, served.tokenizer)
    assert wanted.prompt is not None, "the body was checked"
    if wanted.add_special_tokens is False:
        return served.tokenizer.encode(wanted.prompt)
    return served.tokenizer.prompt_ids(wanted.prompt)


def _masks(served: ServedModel, schema: dict[str, Any], count: int) -> Sequence[TokenMask]:
    try:
        return served.grammars.masks(schema, count)
    except MissingExtraError as error:
        message = f"response_format is not supported here: {error}"
        raise RequestError(message, 400, "unsupported_parameter", "response_format") from error
    except InputError as error:
        raise RequestError(str(error), parameter="response_format") from error


@contextlib.contextmanager
def _as_parameter(name: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise RequestError(str(error), parameter=name) from error


def _check(continuation: Continuation, ids: int, context: int) -> None:
    """Raise RequestError for an id that the vocabulary does not have, or a prompt that is none."""
    biases = continuation.sampling.logit_bias
    if wrong := [one for one in biases if one >= ids]:
        message = f"logit_bias: id {wrong[0]} is not one of the model's {ids} ids"
        raise RequestError(message, parameter="logit_bias")
    with _as_parameter("prompt"):
        continuation.check(ids, context)


def _named(served: Any, asked: str | None, what: str, other_option: str) -> Any:
    """`served`, if there is one and it has the name that was asked for. Raises RequestError 404."""
    if served is None:
        message = f"this server has no {what}: it was started with {other_option} only"
        raise RequestError(message, 404, "model_not_found")
    if asked not in (None, served.name):
        message = f"the model {asked!r} is not served here; this route serves {served.name!r}"
        raise RequestError(message, 404, "model_not_found", "model")
    return served
