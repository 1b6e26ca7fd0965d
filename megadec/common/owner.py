"""One owner a folder: a second start is refused while the first one lives, and takes over when that is dead.

The system's lock on a file is what counts, not what the file says: it ends with the process, however that ends, and
NFS and most cluster file systems tell other hosts of it.
"""

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import IO

from megadec.common.files import may_fail, storage_errors
from megadec.common.log import logger

OWNER_FILE = "owner.json"
# A start that was killed may take so long to end, such as that of a node which the scheduler has just given up.
WAIT_SECONDS = 20.0

log = logger(__name__)


def take_folder(folder: Path, wait_seconds: float = WAIT_SECONDS) -> tuple[IO[str] | None, str | None]:
    """Own a folder, which is made: (the locked file, open as long as it is owned, None), or (None, who has it).

    Raises StorageError where nothing can be written.
    """
    deadline, told = time.monotonic() + wait_seconds, False
    while True:
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stream = open(folder / OWNER_FILE, "a+", encoding="utf-8")  # noqa: SIM115 open as long as it is owned
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            owner = stream.read() or "it has not said who it is"
            stream.close()
            if time.monotonic() > deadline:
                return None, owner
            if not told:
                log.info("%s belongs to a run that is there; waiting %g s for its end", folder, wait_seconds)
            told = True
            time.sleep(0.5)
            continue
        except OSError as error:
            log.warning("%s: this file system locks nothing (%s), so a second start would not be seen", folder, error)
        if _is_at(stream, folder / OWNER_FILE):
            break
        stream.close()  # its owner has removed the folder meanwhile
    with may_fail(f"{folder / OWNER_FILE} does not say who owns the folder"):
        stream.truncate(0)
        stream.write(
            json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%F %T")})
        )
        stream.flush()
    return stream, None


def _is_at(stream: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
