"""A data card: which sources a training reads, how often each comes, and under which licence, in one YAML file.

    sources:
      zhwiki:
        shards: ../shards/zhwiki     # a folder beside the card, or an address
        weight: 3.0
        epochs: 4
        licences: [CC BY-SA 4.0]

A card names places. What identifies a set stays its content, so a card may move with its shards in the middle of a run.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from megadec.common.config import from_dict, from_yaml
from megadec.common.errors import ConfigError, check_range
from megadec.data.shuffle import check_weights

T = TypeVar("T")


@dataclass(frozen=True)
class CardSource:
    """One source of a card.

    Attributes:
        shards: folder of shards, relative to the card, or an address.
        weight: how often its windows come while those of a source of weight 1 come once.
        epochs: how often it may be seen in a whole run; none: as often as the weights make it.
        licences: under which its texts may be used.
    """

    shards: str
    weight: float = 1.0
    epochs: float | None = None
    licences: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_weights([self.weight])
        check_range(self, "", "epochs", above=0)


@dataclass(frozen=True)
class DataCard:
    """The sources of a card by their names, their folders as they are found from here."""

    sources: dict[str, CardSource]

    @property
    def train(self) -> dict[str, float]:
        """Weights by folder, as `data.train` of a run has them."""
        return {source.shards: source.weight for source in self.sources.values()}

    @property
    def max_epochs(self) -> dict[str, float]:
        """Allowed epochs by folder, as `data.max_epochs` of a run has them."""
        return {source.shards: source.epochs for source in self.sources.values() if source.epochs is not None}


@dataclass(frozen=True)
class _CardFile:
    sources: Any = None


def read_card(path: Path | str) -> DataCard:
    """The card in a YAML file. Raises ConfigError for a file that is none, naming the file, the source and the key."""
    path = Path(path)
    named = _in_file(path, _CardFile, from_yaml, path).sources
    if not named or not isinstance(named, dict):
        raise ConfigError(f"{path}: sources={named!r}: a card has at least one source, `NAME:` with keys below it")
    sources: dict[str, CardSource] = {}
    names: dict[str, str] = {}
    for name, values in named.items():
        origin = f"{path}: sources.{name}"
        if not isinstance(values, dict):
            raise ConfigError(f"{origin}={values!r} is not a source; `shards:` and other keys stand below its name")
        source = _in_file(origin, CardSource, partial(from_dict, origin=origin), values)
        place = _found_from_here(source.shards, path.parent)
        if place in names:
            raise ConfigError(f"{origin}.shards={source.shards} is the folder of {names[place]}; name it once")
        names[place] = str(name)
        sources[str(name)] = replace(source, shards=place)
    return DataCard(sources)


def without_card(data: Mapping[str, Any], section: str) -> dict[str, Any]:
    """The keys of a run's section `data`, with what its card gives in the place of the card.

    Raises ConfigError as `read_card` does, and for a card beside a mixture of the run's own.
    """
    if data.get("card") is None:
        return dict(data)
    for key in ("train", "max_epochs"):
        if data.get(key):
            raise ConfigError(f"{section}card={data['card']} and {section}{key} were both given: the card gives both")
    card = read_card(data["card"])
    return {**data, "card": None, "train": card.train, "max_epochs": card.max_epochs}


def check_epochs(max_epochs: Mapping[str, float], section: str) -> None:
    """Raise ConfigError for an allowed number of epochs that is not above 0."""
    for folder, epochs in max_epochs.items():
        if not (math.isfinite(epochs) and epochs > 0):
            raise ConfigError(f"{section}max_epochs: {folder}: {epochs} is not a finite number above 0")


def _in_file(origin: Path | str, kind: type[T], read: Callable[[type[T], Any], T], values: Any) -> T:
    """What `read` makes of the values; an error says where they stand."""
    try:
        return read(kind, values)
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(str(origin)) else f"{origin}: {error}") from error


def _found_from_here(shards: str, folder: Path) -> str:
    return shards.rstrip("/") if "://" in shards else os.path.normpath(folder / shards)
