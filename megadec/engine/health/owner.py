"""One owner a run folder: a second start is refused while the first one lives, and takes over when that is dead.

The system's lock on a file is what counts, not what the file says: it ends with the process, however that ends, and
NFS and most cluster file systems tell other hosts of it.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from megadec.common.errors import ConfigError
from megadec.common.files import may_fail, storage_errors
from megadec.common.log import logger
from megadec.engine.ranks import Ranks

OWNER_FILE = "owner.json"
# A start that was killed may take so long to end, such as that of a node which the scheduler has just given up.
WAIT_SECONDS = 20.0

log = logger(__name__)


@contextmanager
def owned(folder: Path, ranks: Ranks) -> Iterator[None]:
    """Own a run's folder while the block runs. Collective; rank 0 holds the lock.

    Raises ConfigError, on every rank, that names who owns it; StorageError where nothing can be written.
    """
    stream, owner = _take(folder) if ranks.rank == 0 else (None, None)
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


def _take(folder: Path) -> tuple[IO[str] | None, str | None]:
    """The locked file, or who has it."""
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stream = open(folder / OWNER_FILE, "a+", encoding="utf-8")  # noqa: SIM115 open as long as it is owned
    deadline, told = time.monotonic() + WAIT_SECONDS, False
    while True:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                stream.seek(0)
                return None, stream.read() or "it has not said who it is"
            if not told:
                log.info("%s belongs to a run that is there; waiting %g s for its end", folder, WAIT_SECONDS)
            told = True
            time.sleep(0.5)
        except OSError as error:
            log.warning("%s: this file system locks nothing (%s), so a second start would not be seen", folder, error)
            break
    with may_fail(f"{folder / OWNER_FILE} does not say who owns the folder"):
        stream.truncate(0)
        stream.write(
            json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")})
        )
        stream.flush()
    return stream, None
