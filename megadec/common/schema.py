"""What a JSON file that others wrote may hold, checked before it is used: one error that names the key.

A schema is a type (`int` is no bool, `float` takes whole numbers too), a list of one schema (a list of such values), or
a mapping: of keys to schemas, where other keys are free, or of `str` to the schema of every value.
"""

import sys
from pathlib import Path
from typing import Any

from megadec.common.errors import MegadecError
from megadec.common.files import read_json

Schema = Any
"""A type, a list of one schema, or a mapping of keys to schemas."""

_WORDS = {str: "a text", int: "a whole number", float: "a finite number", bool: "true or false"}
_SHOWN_CHARACTERS = 80


def read_object(path: Path, schema: dict[Any, Schema], error: type[MegadecError]) -> dict[str, Any]:
    """The JSON object in a file, checked; empty where there is no such file. Raises `error`."""
    found: dict[str, Any] = read_json(path, error) if path.is_file() else {}
    check_schema(found, schema, str(path), error)
    return found


def check_schema(found: Any, schema: Schema, where: str, error: type[MegadecError], key: str = "") -> None:
    """Raise `error` with `where` and the first key whose value is of another kind than `schema` says.

    A named key may be null, which is mostly the same as left out (`without_null`).
    """
    if isinstance(schema, dict):
        if not isinstance(found, dict):
            raise error(_unlike(found, "an object", where, key))
        for name, value in found.items():
            inner = schema.get(name, schema.get(str))
            if inner is not None and (value is not None or str in schema):
                check_schema(value, inner, where, error, f"{key}.{name}".removeprefix("."))
    elif isinstance(schema, list):
        if not isinstance(found, list):
            raise error(_unlike(found, "a list", where, key))
        for number, one in enumerate(found):
            check_schema(one, schema[0], where, error, f"{key}[{number}]")
    else:
        accepted = (int, float) if schema is float else schema
        is_endless = schema is float and isinstance(found, int | float) and not abs(found) <= sys.float_info.max
        if not isinstance(found, accepted) or (isinstance(found, bool) and schema is not bool) or is_endless:
            raise error(_unlike(found, _WORDS[schema], where, key))


def without_null(found: Any) -> Any:
    """A JSON value in which no key is null."""
    if isinstance(found, dict):
        return {name: without_null(value) for name, value in found.items() if value is not None}
    return found


def shown(value: Any) -> str:
    """A value of a file in a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _unlike(found: Any, wanted: str, where: str, key: str) -> str:
    return f"{where}: {f'{key}=' * bool(key)}{shown(found)} is not {wanted}"
