"""An object of a request, checked by pydantic, and the checks that several kinds of them share.

A parameter that would change the answer and is not supported is refused, never dropped in silence: a client that sends
it everywhere has to stop.
"""

import json
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, from_json

from megadec.common.errors import suggest
from megadec.serve.limits import RequestError

T = TypeVar("T", bound=BaseModel)
MOST_COUNT = 2**31 - 1
Ids = Annotated[list[int], Field(min_length=1)]

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


def listed(found: Any) -> Any:
    """A text alone is the same as a list of it."""
    return [found] if isinstance(found, str) else found


def _inputs(found: Any) -> list[str | list[int]]:
    """Texts and lists of ids; one alone is a list of it."""
    listed = found if isinstance(found, list) and found and isinstance(found[0], str | list) else [found]
    for one in listed:
        if not (isinstance(one, str) or (isinstance(one, list) and one and all(type(i) is int for i in one))):
            raise ValueError("Input should be a text, a list of at least one token id, or a list of such")
    return listed


# A text or ids, or a list of these, as a list.
Prompts = Annotated[
    list[str | list[int]],
    PlainValidator(_inputs, json_schema_input_type=str | Ids | Annotated[list[str | Ids], Field(min_length=1)]),
]


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
                message = f"{name}={shown(value)} is not supported here; leave it out, or give {rule}"
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
    found = "" if first["type"] == "missing" else f"; {shown(first['input'])} was found"
    return RequestError(f"{name or 'the body'}: {rule}{found}", parameter=name or None)


def shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]
