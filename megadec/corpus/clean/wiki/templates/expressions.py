"""What `{{#expr: }}` computes: MediaWiki's arithmetic (ParserFunctions), or None for an error."""

import math
import operator
import re
from collections.abc import Callable

_TOKEN = re.compile(
    r"\s*(?:([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)|(<=|>=|<>|!=|[-+*/^()=<>×÷−])|([a-z]+))", re.IGNORECASE
)
_LONGEST = 400
_DEEPEST = 30

Number = float
_BINARY: dict[str, tuple[int, Callable[[Number, Number], Number]]] = {
    "or": (1, lambda a, b: float(bool(a) or bool(b))),
    "and": (2, lambda a, b: float(bool(a) and bool(b))),
    "=": (3, lambda a, b: float(a == b)),
    "!=": (3, lambda a, b: float(a != b)),
    "<>": (3, lambda a, b: float(a != b)),
    "<": (3, lambda a, b: float(a < b)),
    ">": (3, lambda a, b: float(a > b)),
    "<=": (3, lambda a, b: float(a <= b)),
    ">=": (3, lambda a, b: float(a >= b)),
    "round": (4, lambda a, b: _round(a, int(b))),
    "+": (5, operator.add),
    "-": (5, operator.sub),
    "*": (6, operator.mul),
    "/": (6, operator.truediv),
    "div": (6, operator.truediv),
    "mod": (6, lambda a, b: math.fmod(int(a), int(b))),
    "^": (8, operator.pow),
}
_FUNCTIONS: dict[str, Callable[[Number], Number]] = {
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "ln": math.log,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "not": lambda a: float(not a),
}
_SIGNS = str.maketrans("×÷−", "*/-")


def evaluate(expression: str) -> str | None:
    """The result as MediaWiki writes it (`2.5`, `3`); None for an error, a division by zero, or what is too long."""
    if not expression.strip() or len(expression) > _LONGEST:
        return None
    try:
        tokens = _tokens(expression.translate(_SIGNS).lower())
        value, rest = _binary(tokens, 0, 0, 0)
        return _written(value) if rest == len(tokens) else None
    except (ValueError, ZeroDivisionError, OverflowError, IndexError, TypeError):
        return None


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(text)
        tokens.append(match[0].strip())
        position = match.end()
    return tokens


def _binary(tokens: list[str], at: int, least: int, depth: int) -> tuple[Number, int]:
    """Precedence climbing from `at`: the value, and where it ends."""
    value, at = _operand(tokens, at, depth + 1)
    while at < len(tokens) and tokens[at] in _BINARY:
        strength, apply = _BINARY[tokens[at]]
        if strength < least:
            break
        right, at = _binary(tokens, at + 1, strength + 1, depth + 1)
        value = apply(value, right)
    return value, at


def _operand(tokens: list[str], at: int, depth: int) -> tuple[Number, int]:
    if depth > _DEEPEST:
        raise ValueError("too deep")
    token = tokens[at]
    if token == "(":
        value, at = _binary(tokens, at + 1, 0, depth + 1)
        if tokens[at] != ")":
            raise ValueError("no )")
        return value, at + 1
    if token in ("-", "+"):
        value, at = _operand(tokens, at + 1, depth + 1)
        return (-value if token == "-" else value), at
    if token in _FUNCTIONS:
        value, at = _operand(tokens, at + 1, depth + 1)
        return _FUNCTIONS[token](value), at
    constants = {"pi": math.pi, "e": math.e}
    return (constants[token] if token in constants else float(token)), at + 1


def _round(value: Number, digits: int) -> Number:
    """Half away from zero, as PHP does it."""
    scale = 10.0**digits
    return math.copysign(math.floor(abs(value) * scale + 0.5) / scale, value)


def _written(value: Number) -> str:
    if isinstance(value, complex) or math.isnan(value) or math.isinf(value):
        raise ValueError(value)
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.14g}"
