"""What the routes of texts take: classification, embeddings, tokens."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from megadec.serve.bodies.body import MOST_COUNT, Body, Prompts, listed
from megadec.serve.bodies.generate import Message
from megadec.serve.limits import RequestError


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("Input is empty; there is nothing to classify")
    return text


TextList = Annotated[
    list[Annotated[str, AfterValidator(_not_blank)]],
    BeforeValidator(listed, json_schema_input_type=str | Annotated[list[str], Field(min_length=1)]),
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
    input: Prompts
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
