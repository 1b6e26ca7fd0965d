"""Where the shards of a run are now: found by what they hold, whatever their folders are called."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from megadec.common.errors import ShardError
from megadec.corpus.shards import INDEX_NAME
from megadec.data.dataset import DataSet
from megadec.data.shard_cache import ShardCacheOptions


def moved_sets(recorded: Mapping[str, str], given: Sequence[str], cache: ShardCacheOptions) -> dict[str, str]:
    """Folder that a run names -> folder where its contents are, of those that `given` has.

    recorded: the run's folders by their contents (`DataSet.sha256`). given: sets, or folders that hold some. Raises
    ShardError for one that holds none of the run's contents, and for a folder of the run that is gone and not among
    what is given.
    """
    found: dict[str, str] = {}
    for place in given:
        contents = {DataSet.open(one, cache=cache, skip_damaged=True).sha256: one for one in _sets_in(place)}
        if not contents.keys() & set(recorded.values()):
            raise ShardError(f"--data {place} holds none of the data sets that the run was trained on")
        found |= contents
    for folder, sha256 in recorded.items():
        if sha256 not in found and "://" not in folder and not Path(folder).exists():
            raise ShardError(
                f"{folder}, which the run was trained on, is not there: --data FOLDER says where its shards are now"
                f" (known by their contents, sha256 {sha256[:12]}...)"
            )
    return {folder: found[sha256] for folder, sha256 in recorded.items() if sha256 in found}


def _sets_in(place: str) -> Iterator[str]:
    """The place itself, where it is a set or an address; else the sets that are folders of it."""
    path = Path(place)
    if "://" in place or (path / INDEX_NAME).is_file() or not path.is_dir():
        yield place
    else:
        yield from (str(file.parent) for file in sorted(path.glob(f"*/{INDEX_NAME}")))


def renamed(values: Any, moved: Mapping[str, str]) -> Any:
    """A run's plain values with its folders of shards, which are keys, as they are called now."""
    if isinstance(values, Mapping):
        return {moved.get(key, key): renamed(value, moved) for key, value in values.items()}
    return [renamed(value, moved) for value in values] if isinstance(values, list) else values
