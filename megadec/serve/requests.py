"""The body of a request -> what it asks for, checked by pydantic.

A parameter that would change the answer and is not supported is refused, never dropped in silence: a client that sends
it everywhere has to stop.
"""

import json
import secrets
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from megadec.common.errors import suggest
from megadec.serve.limits import RequestError

T = TypeVar("T", bound=BaseModel)

# OpenAI's parameters that never change the text.
IGNORED = {"metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_retention"}
IGNORED |= {"safety_identifier", "service_tier", "store", "user"}
# Not supported, but these values of them ask for nothing; null never does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("audio", "reasoning_effort", "verbosity", "web_search_options"), ()),
    **dict.fromkeys(("best_of", "n"), (1,)),
    **dict.fromkeys(("echo", "logprobs"), (False,)),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "top_logprobs"), (0,)),
    **dict.fromkeys(("function_call", "tool_choice"), ("none", "auto")),
    **dict.fromkeys(("functions", "tools"), ([],)),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
}
MOST_COUNT = 2**31 - 1
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions


def _listed(found: Any) -> Any:
    """A text alone is the same as a list of it."""
    return [found] if isinstance(found, str) else found


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("Input is empty; there is nothing to classify")
    return text


def _one_prompt(found: Any) -> Any:
    """A text or ids, also as the only one of a list."""
    if isinstance(found, list) and found and isinstance(found[0], str | list):
        if len(found) > 1:
            raise ValueError(f"Input holds {len(found)} prompts; one prompt a request is answered")
        found = found[0]
    if isinstance(found, str) or (isinstance(found, list) and found and all(type(i) is int for i in found)):
        return found
    raise ValueError("Input should be a text, or a list of at least one token id")


def _joined(found: Any) -> Any:
    """The text of a list of text parts."""
    if not isinstance(found, list):
        return found
    for position, part in enumerate(found):
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            raise ValueError(f"Input should hold parts of type 'text' with a text only; part {position} is none")
    return "".join(part["text"] for part in found)


def _no_tools(found: Any) -> None:
    if found:
        raise ValueError("Input should be left out: the models here know no tools")


class Body(BaseModel):
    """An object of a request: no field that is not known, and no value that only could be meant as another type."""

    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, found: Any) -> Any:
        """null is the same as left out. Raises RequestError for what would ask for something not supported."""
        if not isinstance(found, dict):
            return found
        kept = {name: value for name, value in found.items() if value is not None and name not in IGNORED}
        for name in [name for name in kept if name in NEUTRAL]:
            # As JSON, true is not 1: `logprobs: 0` asks for something and `logprobs: false` does not.
            value, allowed = kept.pop(name), NEUTRAL[name]
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
                rule = " or ".join(json.dumps(one) for one in (*allowed, None))
                message = f"{name}={_shown(value)} is not supported here; leave it out, or give {rule}"
                raise RequestError(message, 400, "unsupported_parameter", name)
        return kept


class StreamOptions(Body):
    """How to stream; obfuscation is not done."""

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerateBody(Body):
    """What completions and chats share. max_tokens: None fills the context, within the server's limit."""

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_COUNT)
    temperature: float = Field(1.0, ge=0, le=2)
    top_k: int = Field(0, ge=0, le=MOST_COUNT)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    seed: int = Field(default_factory=lambda: secrets.randbits(62), ge=-(2**63), le=2**63 - 1)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_listed), Field(max_length=4)] = []
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options and not self.stream:
            message = "stream_options is given without stream=true; it says how to stream"
            raise RequestError(message, parameter="stream_options")
        return self


class CompletionBody(GenerateBody):
    """A body of /v1/completions. prompt: a text or ids."""

    prompt: Annotated[str | list[int], PlainValidator(_one_prompt)]
    max_tokens: int = Field(COMPLETION_TOKENS, ge=1, le=MOST_COUNT)


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(strict=True)

    role: Annotated[
        Literal["system", "developer", "user", "assistant"],
        AfterValidator(lambda role: "system" if role == "developer" else role),
    ]
    content: Annotated[str, BeforeValidator(_joined)]
    tool_calls: Annotated[Any, AfterValidator(_no_tools)] = None
    function_call: Annotated[Any, AfterValidator(_no_tools)] = None


class ChatBody(GenerateBody):
    """A body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_COUNT)

    @model_validator(mode="after")
    def _check_max_tokens(self) -> Self:
        if self.max_tokens and self.max_completion_tokens:
            message = "max_tokens and max_completion_tokens are two names of one limit; give one of them"
            raise RequestError(message, parameter="max_tokens")
        return self


class ClassifyBody(Body):
    """A body of /v1/classify. texts: what to classify, in the order of the answer."""

    model: str | None = None
    texts: Annotated[list[Annotated[str, AfterValidator(_not_blank)]], BeforeValidator(_listed), Field(min_length=1)]


def parse(kind: type[T], body: bytes) -> T:
    """The body, checked. Raises RequestError that names the parameter, the rule and what was found."""
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise RequestError(f"the body is not JSON in UTF-8: {error}", code=None) from error
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _refusal(kind, error) from error


def _refusal(kind: type[BaseModel], error: ValidationError) -> RequestError:
    first = error.errors(include_url=False)[0]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        near = suggest(name, [*kind.model_fields, *NEUTRAL])
        return RequestError(f"unknown parameter {name!r}{near}", 400, "unknown_parameter", name)
    rule = "Input should be an object" if first["type"] == "model_type" else first["msg"].removeprefix("Value error, ")
    found = "" if first["type"] == "missing" else f"; {_shown(first['input'])} was found"
    return RequestError(f"{name or 'the body'}: {rule}{found}", parameter=name or None)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
