"""Remote shards on this machine: fetched whole, checked, kept in a folder of a bounded size.

A tar is named by its contents, so runs share it; the ranks of a machine share the folder by file locks. Windows are
read in random order, so a folder that does not hold the whole set fetches shards again and again.
"""

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, TypeVar

from megadec.common.errors import ConfigError, MegadecError, ShardError, check_range
from megadec.common.files import HASH_CHUNK_BYTES, cache_folder, storage_errors, sync_path
from megadec.common.log import logger

T = TypeVar("T")
SHARD_LOCKS = 64
LONGEST_PAUSE_SECONDS = 60.0
ROOM_PAUSE_SECONDS = 0.1
# Names that this cache gives. A folder may hold other files too, which are nobody's to count or remove here.
_WHOLE = re.compile(r"[0-9a-f]{64}\.tar")
_PARTIAL = re.compile(r"\.[0-9a-f]{64}\.partial")
_log = logger(__name__)


class DamagedShardError(ShardError):
    """A shard is missing, cut or changed: what `data.bad_shards` lets a run go on without."""


@dataclass(frozen=True)
class ShardCacheOptions:
    """Where remote shards are kept, and how they are fetched.

    folder: null is `$XDG_CACHE_HOME/megadec/shards` (below ~/.cache).
    bytes: the most that the folder may hold; the shards used least recently are removed first.
    attempts: how often a fetch is tried.
    pause_seconds: the wait before the second try, doubled before each further one.
    """

    folder: str | None = None
    bytes: int = 64 * 2**30
    attempts: int = 5
    pause_seconds: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "data.cache.", "bytes", "attempts", least=1)
        check_range(self, "data.cache.", "pause_seconds", least=0)

    @property
    def path(self) -> Path:
        """The folder."""
        return cache_folder("shards") if self.folder is None else Path(self.folder)


class RemoteShard(NamedTuple):
    """A tar that lies elsewhere: its address, what it must be, and how it is read."""

    address: str
    sha256: str
    shard_bytes: int
    read: Callable[[], IO[bytes]]


def with_retries(what: str, options: ShardCacheOptions, attempt: Callable[[], T]) -> T:
    """`attempt()`, again after a pause when it fails, at most `options.attempts` times.

    What is missing or forbidden is not tried again. Raises DamagedShardError for what is missing or comes damaged each
    time, ShardError for what cannot be reached, and other errors of ours at once.
    """
    for number in range(1, options.attempts + 1):
        try:
            return attempt()
        except FileNotFoundError as error:
            raise DamagedShardError(f"{what} is missing: copy it there again") from error
        except PermissionError as error:
            raise ShardError(f"{what} may not be read: {error}") from error
        except Exception as error:  # each of fsspec's file systems has exceptions of its own
            if isinstance(error, MegadecError) and not isinstance(error, DamagedShardError):
                raise
            failure = error
        if number < options.attempts:
            pause = min(options.pause_seconds * 2 ** (number - 1), LONGEST_PAUSE_SECONDS)
            _log.warning(
                "%s: %s; attempt %d of %d, again in %.1f s", what, _words(failure), number, options.attempts, pause
            )
            time.sleep(pause)
    kind = DamagedShardError if isinstance(failure, DamagedShardError) else ShardError
    raise kind(f"{what}: {_words(failure)}, in each of {options.attempts} attempt(s)") from failure


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, MegadecError) else f"{type(error).__name__}: {text}"


class ShardCache:
    """The folder. Threads and processes may use it at once. Raises StorageError where it cannot be written."""

    def __init__(self, options: ShardCacheOptions) -> None:
        self._options = options
        self.folder = options.path

    def open(self, shard: RemoteShard) -> tuple[BinaryIO, bool]:
        """The tar, open for reading, and whether it had to be fetched. An open file outlives its removal.

        Raises DamagedShardError, ShardError as `with_retries` does, StorageError, and ConfigError for a shard that is
        larger than the folder may be.
        """
        if (found := self._open_whole(shard)) is not None:
            return found, False
        with self._locked(self._lock_of(shard.sha256)):
            if (found := self._open_whole(shard)) is not None:  # another rank fetched it while this one waited
                return found, False
            return with_retries(shard.address, self._options, lambda: self._fetch(shard)), True

    def forget(self, shard: RemoteShard) -> None:
        """Remove the tar, so that it is fetched anew."""
        with self._locked(self._lock_of(shard.sha256)):
            self._path(shard.sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.tar"

    def _lock_of(self, sha256: str) -> str:
        # A fixed number of files: one for each shard could never be removed without a race.
        return f"shard-{int(sha256[:8], 16) % SHARD_LOCKS:02d}"

    def _open_whole(self, shard: RemoteShard) -> BinaryIO | None:
        try:
            file = open(self._path(shard.sha256), "rb")  # noqa: SIM115 (the caller's)
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size != shard.shard_bytes:  # renamed when whole, so somebody else has cut it
            file.close()
            return None
        with suppress(PermissionError):  # the tar of another user, whose own use keeps it young
            os.utime(file.fileno())
        return file

    def _fetch(self, shard: RemoteShard) -> BinaryIO:
        """Read the shard into a hidden file, compare, rename. The caller holds the shard's lock."""
        final = self._path(shard.sha256)
        partial = self.folder / f".{shard.sha256}.partial"
        began = time.perf_counter()
        try:
            with storage_errors(partial):
                target = open(partial, "wb")  # noqa: SIM115 (closed by the next line)
            with target:
                self._make_room(shard, partial)
                found, digest = _copy(shard, target)
            if found != shard.shard_bytes or digest != shard.sha256:
                raise DamagedShardError(
                    f"{found} bytes with sha256 {digest[:12]}... came, the index says {shard.shard_bytes} bytes with"
                    f" {shard.sha256[:12]}..."
                )
            whole = open(partial, "rb")  # noqa: SIM115 (the caller's; before it has a name under which it may be removed)
            with storage_errors(final):
                os.replace(partial, final)
                sync_path(self.folder)
        finally:
            partial.unlink(missing_ok=True)
        _log.info("fetched %s (%d bytes) in %.1f s", shard.address, shard.shard_bytes, time.perf_counter() - began)
        return whole

    def _make_room(self, shard: RemoteShard, partial: Path) -> None:
        """Give `partial` its full size as soon as it fits, so that others count it; the longest unused tars go."""
        if shard.shard_bytes > self._options.bytes:
            raise ConfigError(
                f"data.cache.bytes={self._options.bytes} is less than the {shard.shard_bytes} bytes of {shard.address}"
            )
        while True:
            with self._locked("room"):
                self._remove_leftovers(partial)
                # In this order, for another rank may rename one meanwhile, which then counts twice and not never.
                others = [stat.st_size for path, stat in self._files(_PARTIAL) if path != partial]
                whole = [(stat.st_mtime_ns, stat.st_size, path) for path, stat in self._files(_WHOLE)]
                free = self._options.bytes - sum(others) - sum(size for _, size, _ in whole)
                for _, size, path in sorted(whole):
                    if free >= shard.shard_bytes:
                        break
                    path.unlink(missing_ok=True)
                    free += size
                if free >= shard.shard_bytes:
                    with storage_errors(partial):
                        os.truncate(partial, shard.shard_bytes)
                    return
            time.sleep(ROOM_PAUSE_SECONDS)  # the others are being fetched, and can go when they are done

    def _files(self, pattern: re.Pattern[str]) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.iterdir():
            if not pattern.fullmatch(path.name):
                continue
            try:
                yield path, path.stat()
            except FileNotFoundError:  # another rank has renamed or removed it
                continue

    def _remove_leftovers(self, own: Path) -> None:
        """Remove what killed processes left: hidden files whose lock nobody holds."""
        for path, _ in list(self._files(_PARTIAL)):
            lock = self._lock_of(path.name[1:])
            if lock == self._lock_of(own.name[1:]):  # held by the caller
                if path != own:
                    path.unlink(missing_ok=True)
                continue
            with self._locked(lock, wait=False) as held:
                if held:
                    path.unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold a lock among all threads and processes of this machine; without `wait`, False where it is held."""
        path = self.folder / f".lock-{name}"
        with storage_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115 (closed below, which lets go of the lock)
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True


def _copy(shard: RemoteShard, target: BinaryIO) -> tuple[int, str]:
    """Bytes and sha256 of what came; stops when it is longer than it may be."""
    digest, found = hashlib.sha256(), 0
    path = Path(target.name)
    # Around writing alone: what the other side refuses is no matter of this disk.
    with shard.read() as source:
        while found <= shard.shard_bytes and (chunk := source.read(HASH_CHUNK_BYTES)):
            with storage_errors(path):
                target.write(chunk)
            digest.update(chunk)
            found += len(chunk)
    with storage_errors(path):
        target.truncate()
        target.flush()
        os.fsync(target.fileno())
    return found, digest.hexdigest()
