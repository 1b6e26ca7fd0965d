"""RoPE for contexts longer than the one that a model first learned: what is done to the rotary frequencies.

Three ways that published models use, under the names and keys that config.json's `rope_scaling` has for them. Plain
numbers without tensors; layers.py makes tables of them.
"""

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from megadec.common.errors import ConfigError, check_choice, suggest

TYPE_KEY = "rope_type"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling(ABC):
    """factor: how much longer the context became. ConfigError for a number that makes no sense."""

    rope_type: ClassVar[str]
    factor: float

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, whole = getattr(self, field.name), field.type is int
            if value is None and field.default is None:
                continue
            if field.type is bool:
                self._check(field.name, isinstance(value, bool), "is not true or false")
                continue
            known = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            words = f"is not a {'whole ' * whole}number greater than zero"
            self._check(field.name, known and 0 < value < math.inf, words)
        self._check("factor", self.factor >= 1, "is less than 1")

    def _check(self, name: str, right: bool, words: str) -> None:
        if not right:
            raise ConfigError(f"{name}={getattr(self, name)!r} {words}")

    @property
    def magnitude(self) -> float:
        """What queries and keys are multiplied with as they are rotated."""
        return 1.0

    @abstractmethod
    def frequencies(self, plain: Sequence[float], theta: float) -> list[float]:
        """The angles a position, in radians, of each rotated pair; `plain` are those of RoPE with base `theta`."""

    def to_dict(self) -> dict[str, Any]:
        """The type and the fields that are given, as plain values; `rope_scaling_of` reads them."""
        given = {key: value for key, value in dataclasses.asdict(self).items() if value is not None}
        return {TYPE_KEY: self.rope_type, **given}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling(RopeScaling):
    """Positions divided by `factor` (arXiv 2306.15595)."""

    rope_type = "linear"

    def frequencies(self, plain: Sequence[float], theta: float) -> list[float]:
        """All of them, divided."""
        return [frequency / self.factor for frequency in plain]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3Scaling(RopeScaling):
    """Slow frequencies divided by `factor`, fast ones kept, those between interpolated (Llama 3.1's model code).

    original_max_position_embeddings: the context before. low_freq_factor, high_freq_factor: how often a pair must turn
    within it so as not to be divided wholly, and to be kept as it is.
    """

    rope_type = "llama3"
    original_max_position_embeddings: int
    low_freq_factor: float
    high_freq_factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        low = self.low_freq_factor
        self._check("high_freq_factor", self.high_freq_factor > low, f"is not more than low_freq_factor={low}")

    def frequencies(self, plain: Sequence[float], theta: float) -> list[float]:
        """Each by how often it turns in the context before."""
        low, high = self.low_freq_factor, self.high_freq_factor
        turns = (self.original_max_position_embeddings * frequency / (2 * math.pi) for frequency in plain)
        kept = [min(1.0, max(0.0, (turn - low) / (high - low))) for turn in turns]
        return [f * (share + (1 - share) / self.factor) for f, share in zip(plain, kept, strict=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling(RopeScaling):
    """YaRN (arXiv 2309.00071): as llama3, along a ramp over the pairs, and queries and keys made larger.

    original_max_position_embeddings: the context before. beta_fast, beta_slow: pairs that turn more often in it than
    the first are kept, less often than the second divided. truncate: the ramp begins and ends at whole pairs.
    attention_factor: of queries and keys; None: 0.1 ln(factor) + 1 (equation 22).
    """

    rope_type = "yarn"
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("beta_fast", self.beta_fast > self.beta_slow, f"is not more than beta_slow={self.beta_slow}")

    @property
    def magnitude(self) -> float:
        """`attention_factor`, or what the paper has for this factor."""
        return yarn_magnitude(self.factor) if self.attention_factor is None else self.attention_factor

    def frequencies(self, plain: Sequence[float], theta: float) -> list[float]:
        """Each by its place on the ramp."""
        size = 2 * len(plain)

        def place(turns: float) -> float:
            """The pair, a broken number, that turns so often in the context before."""
            ratio = self.original_max_position_embeddings / (turns * 2 * math.pi)
            return size * math.log(ratio) / (2 * math.log(theta))

        first, last = place(self.beta_fast), place(self.beta_slow)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        width = last - first or 0.001
        divided = [min(1.0, max(0.0, (pair - first) / width)) for pair in range(len(plain))]
        return [f * (1 - share + share / self.factor) for f, share in zip(plain, divided, strict=True)]


BY_LENGTH = ("dynamic", "longrope")
SCALINGS = {kind.rope_type: kind for kind in (LinearScaling, Llama3Scaling, YarnScaling)}


def yarn_magnitude(factor: float, weight: float = 1.0) -> float:
    """0.1 weight ln(factor) + 1; DeepSeek's `mscale` is the weight."""
    return 0.1 * weight * math.log(factor) + 1.0


def rope_scaling_of(values: Mapping[str, Any], key: str) -> RopeScaling:
    """The scaling that a mapping in config.json's words describes, which stands under `key`.

    Raises ConfigError naming the key: an unknown type or key, one that is missing, a number that makes no sense.
    """
    if values.get(TYPE_KEY) in BY_LENGTH:
        raise ConfigError(
            f"{key}.{TYPE_KEY}={values[TYPE_KEY]!r}: its angles depend on how long a text is, which ours do not;"
            f" {', '.join(SCALINGS)} are read"
        )
    check_choice(f"{key}.{TYPE_KEY}", str(values.get(TYPE_KEY)), tuple(SCALINGS))
    kind = SCALINGS[values[TYPE_KEY]]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: value for name, value in values.items() if name != TYPE_KEY and value is not None}
    for name in given:
        if name not in fields:
            raise ConfigError(f"{key}.{name} is not a key of {kind.rope_type} scaling{suggest(name, fields)}")
    for name, field in fields.items():
        if name not in given and field.default is dataclasses.MISSING:
            raise ConfigError(f"{key}.{name} is missing; {kind.rope_type} scaling needs it")
    try:
        return kind(**given)
    except ConfigError as error:
        raise ConfigError(f"{key}.{error}") from error
