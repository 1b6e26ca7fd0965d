"""Values in a client's JSON, checked one by one.

In: a decoded body and a name. Out: the value in its type and range, or a RequestError that names the parameter, what
was found, and the rule. Functions and no schema library, so that messages are in the words of this service.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from megadec.serve.limits import RequestError


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises RequestError."""

    def refuse_constant(name: str) -> NoReturn:
        raise RequestError(f"the body holds {name}, which is not JSON")

    try:
        found = json.loads(body.decode("utf-8"), parse_constant=refuse_constant)
    except UnicodeDecodeError as error:
        raise RequestError(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from error
    except json.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or brackets nested as deep
        raise RequestError(f"the body is not JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise RequestError(f"the body holds {kind(found)}; an object with parameters is expected")
    return found


def boolean(body: Mapping[str, Any], name: str, shown: str | None = None) -> bool:
    """true or false; false where it is missing. `shown` is its name in the message."""
    found = body.get(name)
    if not (found is None or isinstance(found, bool)):
        refuse(shown or name, f"is {kind(found)}; true or false is expected")
    return bool(found)


def integer(
    body: Mapping[str, Any], name: str, default: int | None, lowest: int, highest: int | None = None
) -> int | None:
    """A whole number in the range, or the default."""
    found = body.get(name)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int):
        refuse(name, f"is {kind(found)}; a whole number is expected")
    if found < lowest or (highest is not None and found > highest):
        rule = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        refuse(name, f"is {found}, which is out of range: {rule}")
    return found


def number(
    body: Mapping[str, Any], name: str, default: float, lowest: float, highest: float, *, above: bool = False
) -> float:
    """A number in the range (`above`: over the lowest), or the default."""
    found = body.get(name)
    if found is None:
        return default
    if isinstance(found, bool) or not isinstance(found, int | float):
        refuse(name, f"is {kind(found)}; a number is expected")
    if not lowest <= found <= highest or (above and found == lowest):
        rule = f"over {lowest:g} and at most {highest:g}" if above else f"from {lowest:g} to {highest:g}"
        refuse(name, f"is {found}, which is out of range: {rule}")
    return float(found)


def optional_text(body: Mapping[str, Any], name: str) -> str | None:
    """A text, or None where it is missing."""
    return None if body.get(name) is None else text(body[name], name)


def text(found: Any, name: str) -> str:
    """A text that has a UTF-8 form."""
    if not isinstance(found, str):
        refuse(name, f"is {kind(found)}; a text is expected")
    try:
        found.encode("utf-8")
    except UnicodeEncodeError as error:
        refuse(name, f"holds half a surrogate pair (\\u{ord(found[error.start]):04x}), which is no character")
    return found


def kind(found: Any) -> str:
    """What was found, in JSON's words."""
    if found is None:
        return "missing or null"
    if isinstance(found, bool):
        return json.dumps(found)
    if isinstance(found, str):
        return f"the text {found[:40]!r}"
    if isinstance(found, list):
        return f"a list of {len(found)}"
    return "an object" if isinstance(found, dict) else f"the number {str(found)[:40]}"


def refuse(name: str, found: str) -> NoReturn:
    """Raise the RequestError that names a parameter."""
    raise RequestError(f"{name} {found}", parameter=name, code="invalid_value")
