"""What the routes answer, for `/openapi.json`; a test holds the answers of every route to these."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Reason = Literal["stop", "length"]


class Answered(BaseModel):
    """An object of an answer: nothing in it but what is named."""

    model_config = ConfigDict(extra="forbid")


class Usage(Answered):
    """Tokens of the prompts, and of all that was generated."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CompletionLogprobs(Answered):
    """Log-probabilities of tokens; null for the first of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answered):
    """An answer to a prompt; index: of its prompt times n, plus its own."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Reason


class Completion(Answered):
    """An answer of /v1/completions; each event of a stream is one without usage."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class TopToken(Answered):
    """A token, its log-probability and its bytes."""

    token: str
    logprob: float
    bytes: list[int]


class ChatToken(TopToken):
    """A token of the answer, with the likeliest in its place."""

    top_logprobs: list[TopToken]


class ChatLogprobs(Answered):
    """The tokens of the answer."""

    content: list[ChatToken]
    refusal: None


class ChatMessage(Answered):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answered):
    """An answer."""

    index: int
    message: ChatMessage
    logprobs: ChatLogprobs | None
    finish_reason: Reason


class Chat(Answered):
    """An answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ClassifiedText(Answered):
    """probs: in the order of the labels of /v1/models; truncated: a part of the text was left out."""

    index: int
    label: str
    probs: list[float]
    num_classes: int
    probabilities: dict[str, float]
    truncated: bool


class Classified(Answered):
    """An answer of /v1/classify."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[ClassifiedText]


class EmbeddingUsage(Answered):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddedText(Answered):
    """A vector of length 1, as numbers or as base64 of float32, the lowest byte first."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Embedded(Answered):
    """An answer of /v1/embeddings."""

    object: Literal["list"]
    data: list[EmbeddedText]
    model: str
    usage: EmbeddingUsage


class Tokenized(Answered):
    """An answer of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenized(Answered):
    """An answer of /detokenize."""

    prompt: str


class ServedEntry(BaseModel):
    """A model that is served, with what is known of it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    task: str
    source: dict[str, Any]


class ServedList(Answered):
    """All of them."""

    object: Literal["list"]
    data: list[ServedEntry]


class Health(Answered):
    """Whether requests are taken on, how many are computed, and how many wait."""

    status: str
    running: int
    waiting: int


class ErrorDetail(Answered):
    """What is wrong: in words, of which kind, with which parameter."""

    message: str
    type: str
    param: str | None
    code: str | None


class Refused(Answered):
    """The error object of OpenAI's API."""

    error: ErrorDetail
