"""What completions and chats take."""

import re
import secrets
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from typing_extensions import TypedDict

from megadec.serve.bodies.body import MOST_COUNT, Body, Prompts, listed, shown
from megadec.serve.limits import RequestError

MOST_CHOICES, MOST_LOGPROBS, MOST_STOPS, MOST_STOP_IDS = 128, 20, 16, 64
COMPLETION_TOKENS = 16  # OpenAI's default for /v1/completions
# What clients may send, where it is another type here.
Text = Annotated[str, Field(min_length=1)]
Stops = Text | Annotated[list[Text], Field(max_length=MOST_STOPS)]
Biases = dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]]


def _biases(found: Any) -> Any:
    """JSON's keys are texts: ids as numbers."""
    if not isinstance(found, dict):
        return found
    if wrong := [key for key in found if not re.fullmatch(r"\d{1,9}", str(key))]:
        raise ValueError(f"Keys should be token ids; {shown(wrong[0])} is none")
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
    ] = Field(default_factory=dict)
    n: int = Field(1, ge=1, le=MOST_CHOICES)
    seed: int = Field(default_factory=lambda: secrets.randbits(62), ge=-(2**63), le=2**63 - 1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        BeforeValidator(listed, json_schema_input_type=Stops),
        Field(max_length=MOST_STOPS),
    ] = Field(default_factory=list)
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

    prompt: Prompts
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
