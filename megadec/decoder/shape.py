"""The numbers that make a decoder, and the named sizes.

In: fields, or the name of a preset with some fields changed. Out: a checked, immutable `DecoderShape`, the single
source of every tensor's shape (a partitioned parameter does not know its own). Presets are YAML and not Python, so that
a size can be read, copied and changed without code; they are checked like any other input.
"""

import dataclasses
import math
from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal, Self, get_args

import yaml

from megadec.common.errors import ConfigError, InputError, check_choice, suggest
from megadec.decoder.rope_scaling import RopeScaling, rope_scaling_of

HEAD_SIZE_STEP = 8
INTERMEDIATE_STEP = 64
AttentionBias = Literal["none", "qkv", "qkvo"]
PRESETS = resources.files("megadec.decoder") / "presets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelShape:
    """What the shapes of all architectures have in common: each field is checked against its type."""

    def __post_init__(self) -> None:
        """Raise ConfigError: numbers are over zero. A text field's values are checked by the shape itself."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):
                raise ConfigError(f"model.shape.{field.name}={value!r} is not true or false")
            if field.type not in (int, float):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ConfigError(f"model.shape.{field.name}={value!r} is not a number greater than zero")
            if field.type is int and not isinstance(value, int):
                raise ConfigError(f"model.shape.{field.name}={value!r} is not a whole number")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values of the fields that need not be given."""
        fields = dataclasses.fields(cls)
        return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderShape(ModelShape):
    """What the Llama, Qwen2 (`attention_bias=qkv`) and Qwen3 (`qk_norm=True`) layouts can express; ConfigError else.

    hidden_size: width of the residual stream. heads x head_size: width of the queries, which need not be hidden_size.
    kv_heads: key and value heads, each shared by heads / kv_heads query heads (arXiv 2305.13245). intermediate_size:
    width inside the SwiGLU (arXiv 2002.05202). max_position_embeddings: longest sequence the decoder accepts.
    rope_scaling: what made that longer than the context which the model first learned. attention_bias: which of the
    products of attention add a vector (q, k, v and o).
    """

    vocabulary_size: int = 32000
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate_size: int
    max_position_embeddings: int
    rope_theta: float = 1e6
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    qk_norm: bool = True
    attention_bias: AttentionBias = "none"
    tied_embeddings: bool = True
    initializer_std: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        llama = f"model.shape.heads={self.heads}: the Llama layout (model.shape.qk_norm=false) needs it"
        for name, factor, words in (
            ("heads", self.kv_heads, f"model.shape.kv_heads={self.kv_heads}"),
            ("hidden_size", 1 if self.qk_norm else self.heads, llama),
            ("head_size", HEAD_SIZE_STEP, HEAD_SIZE_STEP),
            ("intermediate_size", INTERMEDIATE_STEP, INTERMEDIATE_STEP),
        ):
            if getattr(self, name) % factor:
                raise ConfigError(f"model.shape.{name}={getattr(self, name)} is not a multiple of {words}")
        check_choice("model.shape.attention_bias", self.attention_bias, get_args(AttentionBias))
        if self.qk_norm and self.attention_bias != "none":
            raise ConfigError(
                f"model.shape.attention_bias={self.attention_bias} with model.shape.qk_norm=true: no layout has both"
            )
        if not isinstance(self.rope_scaling, RopeScaling | None):
            raise ConfigError(
                f"model.shape.rope_scaling={self.rope_scaling!r} is not keys such as {{rope_type: linear, factor: 2.0}}"
            )
        if self.rope_scaling is not None and self.rope_theta <= 1:
            raise ConfigError(f"model.shape.rope_theta={self.rope_theta} is not more than 1; rope_scaling needs that")

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values; `from_mapping` reads them."""
        scaling = self.rope_scaling
        return {**super().to_dict(), "rope_scaling": None if scaling is None else scaling.to_dict()}

    @property
    def query_size(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.head_size

    @property
    def key_value_size(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.head_size

    @property
    def attention_size(self) -> int:
        """Multiplications of attention for each squared token: two products, of a token with half of its document."""
        return self.layers * self.query_size

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """The preset `name`, with the fields in `overrides` changed. Raises ConfigError on an unknown name or field."""
        check_choice("model.preset", name, preset_names())
        text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
        return cls.from_mapping({**yaml.safe_load(text), **overrides})

    @classmethod
    def from_mapping(cls, values: dict[str, Any]) -> Self:
        """A shape from plain values. Raises ConfigError on an unknown or a missing field."""
        check_names(cls, values, "decoder", f"give it, or name a preset ({', '.join(preset_names())})")
        scaling = values.get("rope_scaling")
        if not isinstance(scaling, Mapping):
            return cls(**values)
        return cls(**{**values, "rope_scaling": rope_scaling_of(scaling, "model.shape.rope_scaling")})


def check_context(tokens: int, context: int, what: str = "a sequence") -> None:
    """Raise InputError for more tokens than the model's context holds."""
    if tokens > context:
        raise InputError(f"{what} of {tokens} tokens does not fit: the model's context is {context} tokens")


def check_names(kind: Any, values: Mapping[str, Any], what: str, advice: str) -> None:
    """Raise ConfigError for a value that the shape dataclass `kind` does not know, and for a field that needs one."""
    known = {field.name: field for field in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            raise ConfigError(f"model.shape.{key} is not a field of the {what}'s shape{suggest(key, known)}")
    missing = [name for name, field in known.items() if field.default is dataclasses.MISSING and name not in values]
    if missing:
        raise ConfigError(f"model.shape.{missing[0]} is missing: {advice}")


def preset_names() -> list[str]:
    """Names of the presets that ship with the package, smallest first."""
    names = [entry.name.removesuffix(".yaml") for entry in PRESETS.iterdir() if entry.name.endswith(".yaml")]
    return sorted(names, key=lambda name: float(name[:-1]) * {"m": 1e6, "b": 1e9}[name[-1]])
