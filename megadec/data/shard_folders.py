"""Where a data set lies: a folder on this machine, or any address that fsspec knows (s3://, hf://, https://, memory://).

A remote folder is looked at in one listing; over http, which has none, a missing shard is found when it is wanted.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

from fsspec.core import url_to_fs

from megadec.common.errors import ConfigError, ShardError
from megadec.common.files import read_json, sha256_of, write_json
from megadec.corpus.shards import INDEX_NAME
from megadec.data.shard_cache import DamagedShardError, RemoteShard, ShardCache, ShardCacheOptions, with_retries

Verify = Literal["sizes", "hashes"]
Shard = Mapping[str, Any]
"""A shard's entry in the index."""
LOCAL_SCHEME = "file://"
UNLISTED = ("http", "https")


def open_folder(folder: Path | str, cache: ShardCacheOptions | None = None) -> "LocalFolder | RemoteFolder":
    """The folder behind a path or an address. Raises ConfigError for an address that fsspec cannot read here."""
    address = str(folder).removeprefix(LOCAL_SCHEME)
    if "://" not in address:
        return LocalFolder(Path(address))
    return RemoteFolder(address, cache or ShardCacheOptions())


def folder_name(folder: Path | str) -> str:
    """The last part of a path or an address, which names the set."""
    return PurePosixPath(folder).name


class LocalFolder:
    """A folder on this machine, or mounted on it. `str` of it names the place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = folder_name(path)

    def __str__(self) -> str:
        return str(self.path)

    def read_index(self) -> Any:
        """index.json, unchecked. Raises ShardError when there is none."""
        path = self.path / INDEX_NAME
        if not path.is_file():
            raise ShardError(
                f"{self.path} has no {INDEX_NAME}: no shards at all, or a half-written set;"
                f" `python tools/prepare.py ... --output {self.path}` makes them"
            )
        return read_json(path, ShardError)

    def open(self, shard: Shard) -> tuple[BinaryIO, bool]:
        """The tar, open for reading, and whether it was fetched just now. Raises ShardError, StorageError."""
        path = self.path / shard["name"]
        try:
            return open(path, "rb"), False
        except FileNotFoundError as error:
            raise DamagedShardError(f"{path} is missing, {INDEX_NAME} names it: copy it again") from error
        except OSError as error:
            raise DamagedShardError(_unreadable(path, error)) from error

    def examine(self, shard: Shard, verify: Verify) -> str | None:
        """What is wrong with the shard in words that name it, None for nothing; "hashes" reads it whole.

        Raises ShardError when the place cannot be reached, StorageError.
        """
        path = self.path / shard["name"]
        try:
            size = path.stat().st_size if path.is_file() else None
            if (wrong := _wrong_size(str(path), size, shard)) is not None or verify == "sizes":
                return wrong
            if (sha256 := sha256_of(path)) == shard["sha256"]:
                return None
            return (
                f"{path}: sha256 is {sha256[:12]}..., {INDEX_NAME} says {shard['sha256'][:12]}...:"
                " its contents changed after it was written; prepare or copy it again"
            )
        except OSError as error:  # a block of the disk that is lost is damage like any other
            return _unreadable(path, error)


class RemoteFolder:
    """A folder elsewhere, with the methods of `LocalFolder`; its tars are fetched whole into the cache when wanted.

    A tar that came damaged in every attempt leaves a note in the cache, so that the next start looks at it first.
    """

    def __init__(self, address: str, options: ShardCacheOptions) -> None:
        self._address = address.rstrip("/")
        self.name = folder_name(self._address)
        self._options = options
        self._cache = ShardCache(options)
        try:
            self._files, self._root = url_to_fs(self._address)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{address}: fsspec cannot read it here: {' '.join(str(error).split())}") from error

    def __str__(self) -> str:
        return self._address

    def read_index(self) -> Any:
        address = f"{self._address}/{INDEX_NAME}"
        raw = with_retries(address, self._options, lambda: self._files.cat_file(f"{self._root}/{INDEX_NAME}"))
        try:
            return json.loads(raw)
        except ValueError as error:
            raise ShardError(f"{address} is not JSON: {error}") from error

    def open(self, shard: Shard) -> tuple[BinaryIO, bool]:
        note = self._note(shard)
        try:
            opened = self._cache.open(self._remote(shard))
        except DamagedShardError as error:
            write_json(note, {"shard": self._address_of(shard), "found": str(error)})
            raise
        note.unlink(missing_ok=True)
        return opened

    def examine(self, shard: Shard, verify: Verify) -> str | None:
        address = self._address_of(shard)
        if self._listed is not None:
            # A listing without sizes says at least that it is there.
            size = self._listed.get(shard["name"])
            wrong = None if size is None and shard["name"] in self._listed else _wrong_size(address, size, shard)
            if wrong is not None:
                return wrong
        if verify == "sizes" and not self._note(shard).exists():
            return None
        try:
            file, fetched = self.open(shard)
            with file:
                whole = fetched or verify == "sizes"
                whole = whole or hashlib.file_digest(cast(Any, file), "sha256").hexdigest() == shard["sha256"]
            if not whole:  # changed here, not there: only a new copy tells
                self._cache.forget(self._remote(shard))
                self.open(shard)[0].close()
        except DamagedShardError as error:
            return str(error)
        return None

    @cached_property
    def _listed(self) -> Mapping[str, int | None] | None:
        """Bytes by name of what lies in the folder; None where it cannot be listed."""
        protocols = self._files.protocol
        if set(UNLISTED) & ({protocols} if isinstance(protocols, str) else set(protocols)):
            return None
        entries = with_retries(self._address, self._options, lambda: self._files.ls(self._root, detail=True))
        return {PurePosixPath(entry["name"]).name: entry["size"] for entry in entries}

    def _remote(self, shard: Shard) -> RemoteShard:
        path = f"{self._root}/{shard['name']}"
        return RemoteShard(
            self._address_of(shard), shard["sha256"], shard["bytes"], lambda: self._files.open(path, "rb")
        )

    def _address_of(self, shard: Shard) -> str:
        return f"{self._address}/{shard['name']}"

    def _note(self, shard: Shard) -> Path:
        return self._cache.folder / f"{shard['sha256']}.damaged"


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}"


def _wrong_size(address: str, size: int | None, shard: Shard) -> str | None:
    if size is None:
        return f"{address} is missing, {INDEX_NAME} names it: copy it again"
    if size == shard["bytes"]:
        return None
    state = "it was cut" if size < shard["bytes"] else "it is another file"
    return f"{address} has {size} bytes, {INDEX_NAME} says {shard['bytes']}: {state}; copy it again"
