"""One owner a run folder: a second start is refused while the first one lives, and takes over when that is dead."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megadec.common.errors import ConfigError
from megadec.common.owner import take_folder
from megadec.engine.ranks import Ranks


@contextmanager
def owned(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Own a run's folder while the block runs. Collective; rank 0 holds the lock.

    Raises ConfigError, on every rank, that names who owns it; StorageError where nothing can be written.
    """
    stream, owner = take_folder(folder) if ranks.rank == 0 else (None, None)
    owner = ranks.broadcast(owner)
    if owner is not None:
        raise ConfigError(
            f"{folder} belongs to a run that trains now ({owner}): wait for its end, or choose another name"
        )
    try:
        yield
    finally:
        if stream is not None:
            stream.close()
