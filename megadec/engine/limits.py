"""The limits of numbers among a run's options, and the one message for a number outside of them."""

from __future__ import annotations

from collections.abc import Callable

from megadec.common.errors import ConfigError

LIMITS: dict[str, Callable[[float], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "above 0": lambda value: value > 0,
    "from 0 to 1": lambda value: 0 <= value <= 1,
    "from 0 to below 1": lambda value: 0 <= value < 1,
}


def check_numbers(section: str, options: object, limit: str, *names: str) -> None:
    """Raise ConfigError for the first of these options, by its key, that is not within the limit; null is no number."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not LIMITS[limit](value):
            raise ConfigError(f"{section}.{name}={value} is not {limit}")


def check_length(key: str, tokens: int, positions: int) -> None:
    """Raise ConfigError when sequences of so many tokens do not fit the model's positions. key: of the tokens."""
    if tokens > positions:
        raise ConfigError(f"{key}={tokens} is more than model.shape.max_position_embeddings={positions}")
