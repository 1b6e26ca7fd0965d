"""The body of a request -> what it asks for, checked.

In: a decoded body. Out: a frozen dataclass, or a RequestError that names the parameter, what was found, and the rule. A
parameter that would change the answer and is not supported is refused, never dropped in silence; a client that sends it
everywhere has to stop.
"""

from __future__ import annotations

import dataclasses
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from megadec.common.errors import suggest
from megadec.decoding.generate import Sampling
from megadec.serve.limits import RequestError
from megadec.serve.values import boolean, integer, kind, number, optional_text, refuse, text

MOST_STOPS = 4

# OpenAI's parameters that never change the text.
IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
)
# Not supported, but these values of them ask for nothing; null never does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
DRAWN = ("temperature", "top_p", "top_k", "repetition_penalty", "seed", "stop", "stream", "stream_options", "model")
COMPLETION_KEYS = ("prompt", "max_tokens", *DRAWN)
CHAT_KEYS = ("messages", "max_tokens", "max_completion_tokens", *DRAWN)
CLASSIFY_KEYS = ("texts", "model")
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
MaxTokensName: TypeAlias = Literal["max_tokens", "max_completion_tokens"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat; role is system, user or assistant."""

    role: str
    content: str


@dataclasses.dataclass(frozen=True)
class GenerateRequest:
    """prompt: a text, ids, or the messages of a chat. max_tokens: None fills the context, within the server's limit."""

    prompt: str | tuple[int, ...] | tuple[Message, ...]
    prompt_name: Literal["prompt", "messages"]
    max_tokens: int | None
    max_tokens_name: MaxTokensName
    sampling: Sampling
    stop: tuple[str, ...]
    stream: bool
    include_usage: bool
    model: str | None


@dataclasses.dataclass(frozen=True)
class ClassifyRequest:
    """texts: what to classify, in the order of the answer."""

    texts: tuple[str, ...]
    model: str | None


def completion_request(body: Mapping[str, Any]) -> GenerateRequest:
    """What a body of /v1/completions asks for. Raises RequestError."""
    _check_names(body, COMPLETION_KEYS)
    max_tokens = integer(body, "max_tokens", COMPLETION_TOKENS, 1)
    return GenerateRequest(_prompt(body.get("prompt")), "prompt", max_tokens, "max_tokens", **_how(body))


def chat_request(body: Mapping[str, Any]) -> GenerateRequest:
    """What a body of /v1/chat/completions asks for. Raises RequestError."""
    _check_names(body, CHAT_KEYS)
    old, new = integer(body, "max_tokens", None, 1), integer(body, "max_completion_tokens", None, 1)
    if old is not None and new is not None:
        refuse("max_tokens", "and max_completion_tokens are two names of one limit; give one of them")
    name: MaxTokensName = "max_tokens" if new is None else "max_completion_tokens"
    return GenerateRequest(_messages(body.get("messages")), "messages", old or new, name, **_how(body))


def classify_request(body: Mapping[str, Any], most_texts: int) -> ClassifyRequest:
    """What a body of /v1/classify asks for. Raises RequestError."""
    _check_names(body, CLASSIFY_KEYS)
    found = body.get("texts")
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not texts:
        refuse("texts", f"is {kind(found)}; a text or a list of at least one text is expected")
    if len(texts) > most_texts:
        refuse("texts", f"holds {len(texts)} texts; at most {most_texts} are classified in one request")
    checked = tuple(text(item, f"texts[{position}]") for position, item in enumerate(texts))
    for position, one in enumerate(checked):
        if not one.strip():
            refuse(f"texts[{position}]", "is empty; there is nothing to classify")
    return ClassifyRequest(checked, optional_text(body, "model"))


def _how(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of GenerateRequest that both routes share."""
    stream = boolean(body, "stream")
    seed = integer(body, "seed", None, -(2**63), 2**63 - 1)
    sampling = Sampling(
        temperature=number(body, "temperature", 1.0, 0.0, 2.0),
        top_k=integer(body, "top_k", 0, 0) or 0,
        top_p=number(body, "top_p", 1.0, 0.0, 1.0, above=True),
        repetition_penalty=number(body, "repetition_penalty", 1.0, 0.0, 100.0, above=True),
        seed=secrets.randbits(62) if seed is None else seed,
    )
    return {
        "sampling": sampling,
        "stop": _stop(body.get("stop")),
        "stream": stream,
        "include_usage": _include_usage(body.get("stream_options"), stream),
        "model": optional_text(body, "model"),
    }


def _check_names(body: Mapping[str, Any], known: Sequence[str]) -> None:
    for name, value in body.items():
        if name in known or name in IGNORED or value is None:
            continue
        if name not in NEUTRAL:
            raise RequestError(
                f"unknown parameter {name!r}{suggest(name, [*known, *NEUTRAL])}",
                parameter=name,
                code="unknown_parameter",
            )
        if not any(_same(value, neutral) for neutral in NEUTRAL[name]):
            allowed = " or ".join(json.dumps(neutral) for neutral in (*NEUTRAL[name], None))
            raise RequestError(
                f"{name}={json.dumps(value, ensure_ascii=False)[:80]} is not supported here; leave it out, or give "
                f"{allowed}",
                parameter=name,
                code="unsupported_parameter",
            )


def _same(value: Any, neutral: Any) -> bool:
    """Equal, where true is not 1 and false is not 0: `logprobs: 0` asks for something and `logprobs: false` not."""
    return isinstance(value, bool) == isinstance(neutral, bool) and bool(value == neutral)


def _prompt(given: Any) -> str | tuple[int, ...]:
    alone = isinstance(given, list) and len(given) == 1 and isinstance(given[0], str | list)
    found = given[0] if alone else given
    if isinstance(found, list) and found and all(isinstance(i, int) and not isinstance(i, bool) for i in found):
        return tuple(found)
    if isinstance(found, list) and len(found) > 1 and all(isinstance(item, str | list) for item in found):
        refuse("prompt", f"holds {len(found)} prompts; one prompt a request is answered")
    if not isinstance(found, str):
        refuse("prompt", f"is {kind(found)}; a text, or a list of at least one token id, is expected")
    return text(found, "prompt")


def _messages(found: Any) -> tuple[Message, ...]:
    if not isinstance(found, list) or not found:
        refuse("messages", f"is {kind(found)}; a list of at least one message is expected")
    return tuple(_message(item, f"messages[{position}]") for position, item in enumerate(found))


def _message(found: Any, name: str) -> Message:
    if not isinstance(found, dict):
        refuse(name, f"is {kind(found)}; an object with role and content is expected")
    role, content = found.get("role"), found.get("content")
    if not isinstance(role, str) or role not in ROLES:
        refuse(f"{name}.role", f"is {role!r}; one of {', '.join(ROLES)} is expected")
    for key in ("tool_calls", "function_call"):
        if found.get(key):
            refuse(f"{name}.{key}", "is not supported: the models here know no tools")
    if isinstance(content, list):
        parts = [_part(part, f"{name}.content[{position}]") for position, part in enumerate(content)]
        return Message(ROLES[role], "".join(parts))
    return Message(ROLES[role], text(content, f"{name}.content"))


def _part(found: Any, name: str) -> str:
    if not isinstance(found, dict) or found.get("type") != "text":
        what = f"a part of type {found.get('type')!r}" if isinstance(found, dict) else kind(found)
        refuse(name, f"is {what}; only parts of type 'text' are read")
    return text(found.get("text"), f"{name}.text")


def _stop(found: Any) -> tuple[str, ...]:
    stops = [found] if isinstance(found, str) else found
    if stops is None:
        return ()
    if not isinstance(stops, list) or not all(isinstance(stop, str) and stop for stop in stops):
        refuse("stop", "is a text, or a list of texts, none of them empty")
    if len(stops) > MOST_STOPS:
        refuse("stop", f"holds {len(stops)} texts; at most {MOST_STOPS} are looked for")
    return tuple(stops)


def _include_usage(found: Any, stream: bool) -> bool:
    if found is None:
        return False
    if not stream:
        refuse("stream_options", "is given without stream=true; it says how to stream")
    if not isinstance(found, dict) or set(found) - {"include_usage", "include_obfuscation"}:
        refuse("stream_options", 'is an object such as {"include_usage": true}')
    return boolean(found, "include_usage", "stream_options.include_usage")
