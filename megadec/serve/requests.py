"""The body of a request -> what it asks for, checked by pydantic.

A parameter that would change the answer and is not supported is refused, never dropped in silence: a client that sends
it everywhere has to stop.
"""

import json
import re
import secrets
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, from_json
from typing_extensions import TypedDict

from megadec.common.errors import suggest
from megadec.serve.limits import RequestError

T = TypeVar("T", bound=BaseModel)
MOST_COUNT = 2**31 - 1
MOST_CHOICES, MOST_LOGPROBS, MOST_STOPS, MOST_STOP_IDS = 128, 20, 16, 64
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
# What clients may send, where it is another type here.
Ids = Annotated[list[int], Field(min_length=1)]
Inputs = str | Ids | Annotated[list[str | Ids], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
Stops = Text | Annotated[list[Text], Field(max_length=MOST_STOPS)]
Biases = dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]]

# OpenAI's parameters that never change the text.
IGNORED = {"metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_retention"}
IGNORED |= {"safety_identifier", "service_tier", "store", "user"}
# Not supported, but these values of them ask for nothing; null never does.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("audio", "reasoning_effort", "verbosity", "web_search_options"), ()),
    **dict.fromkeys(("echo", "logprobs"), (False,)),
    **dict.fromkeys(("function_call", "tool_choice"), ("none", "auto")),
    **dict.fromkeys(("functions", "tools"), ([],)),
    "modalities": (["text"],),
    "suffix": ("",),
}


def _listed(found: Any) -> Any:
    """A text alone is the same as a list of it."""
    return [found] if isinstance(found, str) else found


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("Input is empty; there is nothing to classify")
    return text


def _inputs(found: Any) -> list[str | list[int]]:
    """Texts and lists of ids; one alone is a list of it."""
    listed = found if isinstance(found, list) and found and isinstance(found[0], str | list) else [found]
    for one in listed:
        if not (isinstance(one, str) or (isinstance(one, list) and one and all(type(i) is int for i in one))):
            raise ValueError("Input should be a text, a list of at least one token id, or a list of such")
    return listed


def _biases(found: Any) -> Any:
    """JSON's keys are texts: ids as numbers."""
    if not isinstance(found, dict):
        return found
    if wrong := [key for key in found if not re.fullmatch(r"\d{1,9}", str(key))]:
        raise ValueError(f"Keys should be token ids; {_shown(wrong[0])} is none")
    return {int(key): value for key, value in found.items()}


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
            if name in cls.model_fields:
                if kept[name] is False and cls.model_fields[name].annotation is not bool:
                    kept.pop(name)  # a completion's `logprobs: false`
                continue
            value, allowed = kept.pop(name), NEUTRAL[name]
            if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
                rule = " or ".join(json.dumps(one) for one in (*allowed, None))
                message = f"{name}={_shown(value)} is not supported here; leave it out, or give {rule}"
                raise RequestError(message, 400, "unsupported_parameter", name)
        return kept

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """As a client sees it: null is the same as left out, and what asks for nothing may be sent."""
        found = handler.resolve_ref_schema(handler(schema))
        properties, required = found.setdefault("properties", {}), found.get("required", [])
        for name, own in properties.items():
            if name not in required and {"type": "null"} not in own.get("anyOf", []):
                properties[name] = {"anyOf": [own, {"type": "null"}]}
        others = {name: {"enum": [*values, None]} for name, values in NEUTRAL.items()} | {name: {} for name in IGNORED}
        found["properties"] = {**dict(sorted(others.items())), **properties}
        return found


class StreamOptions(Body):
    """How to stream; obfuscation is not done."""

    include_usage: bool = False
    include_obfuscation: bool = False


class JsonSchema(Body):
    """What OpenAI nests below json_schema. strict: what is not strict is held to the schema as well."""

    name: str = Field(min_length=1, max_length=64)
    json_schema: dict[str, Any] = Field(alias="schema")
    description: str | None = None
    strict: bool = True


class ResponseFormat(Body):
    """What an answer has to look like: any text, a JSON object, or JSON of a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with type 'json_schema', and only with it")
        return self

    @property
    def schema_of_answer(self) -> dict[str, Any] | None:
        """The JSON schema; None for any text."""
        if self.json_schema is not None:
            return self.json_schema.json_schema
        return {"type": "object"} if self.type == "json_object" else None


class GenerateBody(Body):
    """What completions and chats share. max_tokens: None fills the context, within the server's limit.

    n: answers to each prompt; the first has the seed, those behind it the next ones.
    stop_token_ids: end an answer as an end token does. ignore_eos: end tokens do not.
    """

    model: str | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_COUNT)
    temperature: float = Field(1.0, ge=0, le=2)
    top_k: int = Field(0, ge=0, le=MOST_COUNT)
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)
    repetition_penalty: float = Field(1.0, ge=0.01, le=100)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: Annotated[
        dict[int, Annotated[float, Field(ge=-100, le=100)]],
        BeforeValidator(_biases, json_schema_input_type=Biases),
    ] = {}
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    seed: int = Field(default_factory=lambda: secrets.randbits(62), ge=-(2**63), le=2**63 - 1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(_listed, json_schema_input_type=Stops),
        Field(max_length=MOST_STOPS),
    ] = []
    stop_token_ids: list[Annotated[int, Field(ge=0, le=MOST_COUNT)]] = Field([], max_length=MOST_STOP_IDS)
    ignore_eos: bool = False
    response_format: ResponseFormat | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options and not self.stream:
            message = "stream_options is given without stream=true; it says how to stream"
            raise RequestError(message, parameter="stream_options")
        return self

    @model_validator(mode="after")
    def _check_format(self) -> Self:
        if self.ignore_eos and self.answer_schema is not None:
            message = (
                "ignore_eos=true goes on behind an end token; with response_format an answer ends where it is whole"
            )
            raise RequestError(message, parameter="ignore_eos")
        return self

    @property
    def made(self) -> int:
        """How many answers are made to each prompt."""
        return self.n

    @property
    def scored(self) -> int | None:
        """How many likeliest tokens are wanted beside the score of each; None for no scores."""
        return None

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's tokens are scored, too."""
        return False

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The JSON schema of the answer; None for any text."""
        return self.response_format.schema_of_answer if self.response_format else None


class CompletionBody(GenerateBody):
    """A body of /v1/completions. prompt: texts and lists of ids. max_tokens 0 draws nothing.

    echo: the prompt stands in front of the answer, in logprobs too. logprobs: of each token, and of so many likeliest.
    best_of: so many answers are made, and the n likeliest a token are given.
    """

    prompt: Annotated[
        list[str | list[int]],
        PlainValidator(_inputs, json_schema_input_type=Inputs),
    ]
    max_tokens: int = Field(COMPLETION_TOKENS, ge=0, le=MOST_COUNT)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)

    @model_validator(mode="after")
    def _check_best_of(self) -> Self:
        best_of = self.n if self.best_of is None else self.best_of
        if best_of < self.n:
            message = f"best_of={best_of} is less than n={self.n}; the n best of best_of answers are given"
            raise RequestError(message, parameter="best_of")
        if best_of > self.n and self.stream:
            message = f"best_of={best_of} with n={self.n} cannot be streamed: which ones are best is known at the end"
            raise RequestError(message, parameter="best_of")
        return self

    @property
    def made(self) -> int:
        """How many answers are made to each prompt."""
        return self.best_of or self.n

    @property
    def scored(self) -> int | None:
        """As above; best_of compares scores."""
        return 0 if self.logprobs is None and self.made > self.n else self.logprobs

    @property
    def scores_prompt(self) -> bool:
        """As above."""
        return self.echo and self.logprobs is not None


class TextPart(TypedDict):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a chat."""

    model_config = ConfigDict(strict=True)

    role: Annotated[
        Literal["system", "developer", "user", "assistant"],
        AfterValidator(lambda role: "system" if role == "developer" else role),
    ]
    content: Annotated[str, BeforeValidator(_joined, json_schema_input_type=str | list[TextPart])]
    tool_calls: Annotated[Any, AfterValidator(_no_tools)] = None
    function_call: Annotated[Any, AfterValidator(_no_tools)] = None


class ChatBody(GenerateBody):
    """A body of /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_COUNT)

    @model_validator(mode="after")
    def _check_max_tokens(self) -> Self:
        if self.max_tokens and self.max_completion_tokens:
            message = "max_tokens and max_completion_tokens are two names of one limit; give one of them"
            raise RequestError(message, parameter="max_tokens")
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs is given without logprobs=true", parameter="top_logprobs")
        return self

    @property
    def scored(self) -> int | None:
        """As above."""
        return (self.top_logprobs or 0) if self.logprobs else None


TextList = Annotated[
    list[Annotated[str, AfterValidator(_not_blank)]],
    BeforeValidator(_listed, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)]),
    Field(min_length=1),
]


class ClassifyBody(Body):
    """A body of /v1/classify. texts: what to classify, in the order of the answer; `input` is vLLM's name for it."""

    model: str | None = None
    texts: TextList | None = None
    input: TextList | None = None

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        if (self.texts is None) == (self.input is None):
            raise RequestError(
                "texts: the texts are required, under one of the names texts and input", parameter="texts"
            )
        return self

    @property
    def listed(self) -> list[str]:
        """The texts, under whichever name they came."""
        return self.texts or self.input or []


class EmbedBody(Body):
    """A body of /v1/embeddings. pooling: the mean over a text's tokens, or the last of them."""

    model: str | None = None
    input: Annotated[
        list[str | list[int]],
        PlainValidator(_inputs, json_schema_input_type=Inputs),
    ]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, le=MOST_COUNT)
    pooling: Literal["mean", "last"] = "mean"


class TokenizeBody(Body):
    """A body of /tokenize: a prompt or messages. add_special_tokens: `<s>` in front, where the model has it so."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(None, min_length=1)
    add_special_tokens: bool | None = None
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _check_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise RequestError("prompt: one of prompt and messages is required", parameter="prompt")
        if self.messages is not None and self.add_special_tokens is not None:
            message = "add_special_tokens is for a prompt; the tokens of messages are those of the chat template"
            raise RequestError(message, parameter="add_special_tokens")
        return self


class DetokenizeBody(Body):
    """A body of /detokenize."""

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0, le=MOST_COUNT)]]


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
