"""Whole files and folders: what has its final name is complete.

In comes a path, out goes a file or folder that is written under a hidden temporary name, flushed to disk and renamed
last. An interrupted writer costs all of its work, never a half-written result.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from megadec.common.errors import ConfigError, MegadecError, StorageError
from megadec.common.log import logger

log = logger(__name__)

_STORAGE_RULES = {
    errno.EEXIST: "a parent of it is a file, not a folder",
    errno.ENOSPC: "the disk is full; free space or choose another folder",
    errno.EDQUOT: "the disk quota is used up; free space or choose another folder",
    errno.EFBIG: "the file is larger than this file system or process limit allows",
    errno.EACCES: "it may not be written; check its permissions",
    errno.EPERM: "it may not be written; check its permissions",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a parent of it is a file, not a folder",
    errno.EISDIR: "it is a folder, and a file of this name is to be written",
    errno.ENAMETOOLONG: "the name is longer than this file system allows",
    errno.ENOENT: "this file system makes no such folder",
    errno.EIO: "the disk failed",
}
HASH_CHUNK_BYTES = 1 << 20
LONGEST_NAME_BYTES = 255


def cache_folder(name: str) -> Path:
    """`$XDG_CACHE_HOME/megadec/NAME`, or the same below ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "megadec" / name


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        rule = _STORAGE_RULES.get(error.errno or 0)
        if rule is None:
            raise
        raise StorageError(f"{path}: cannot write ({error.strerror}): {rule}") from error


@contextmanager
def may_fail(what: str) -> Iterator[None]:
    """Around the writing of a file that a run can do without: a refusal of the disk is a warning. what: the loss."""
    try:
        yield
    except (MegadecError, OSError) as error:
        log.warning("%s: %s; the run goes on", what, error)


@contextmanager
def whole_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` for writing (`wb` or UTF-8 `w`); on success flush it to disk and rename it.

    On any exception the temporary file is removed and nothing appears under `path`. Raises StorageError.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_path(path.parent)


@contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a temporary folder beside `path`; on success flush its files to disk and rename it to `path`.

    On any exception the temporary folder is removed. Raises ConfigError when `path` exists and `replace` is False, and
    StorageError.
    """
    path = Path(path)
    if path.exists() and not replace and not (path.is_dir() and not any(path.iterdir())):
        raise ConfigError(f"{path} exists already; choose another folder, or remove it first")
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            sync_tree(temporary)
            # What stood there before goes only after the new folder has the name.
            previous = path.with_name(f".{path.name}.previous-{os.getpid()}")
            if path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
            sync_path(path.parent)
            shutil.rmtree(previous, ignore_errors=True)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def remove_temporary(folder: Path) -> None:
    """Remove the files that writers with `whole_file` left unfinished in `folder` when they were killed.

    Nobody may be writing there.
    """
    for path in folder.glob(".*.partial-*"):
        if path.is_file():
            path.unlink()


def sync_path(path: Path | str) -> None:
    """Flush a file's content, or a folder's entries, to disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush every file and folder under `folder` to disk."""
    for root, _, names in os.walk(folder):
        for path in (*(os.path.join(root, name) for name in names), root):
            sync_path(path)


def stays_inside(name: str) -> bool:
    """Whether a name that a file of others gives is that of a file in its own folder, or in one below it."""
    parts = name.split("/")
    return name.isprintable() and len(name.encode()) <= LONGEST_NAME_BYTES and not {"", ".", ".."} & set(parts)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file as hex."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON under its final name at once. Raises StorageError."""
    with whole_file(path, "w") as stream:
        json.dump(value, stream, ensure_ascii=False, indent=1)
        stream.write("\n")


def read_text(path: Path, error: type[MegadecError] = ConfigError) -> str:
    """Read a UTF-8 file; what is missing or is none is raised as `error`, naming the file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as missing:
        raise error(f"{path} does not exist") from missing
    except (OSError, UnicodeDecodeError) as unreadable:
        raise error(f"{path} cannot be read as UTF-8 text: {unreadable}") from unreadable


def read_json(path: Path, error: type[MegadecError] = ConfigError) -> Any:
    """Read a JSON file; what is missing or is no JSON is raised as `error`, naming the file and the place in it."""
    text = read_text(path, error)
    try:
        return json.loads(text)
    except json.JSONDecodeError as broken:
        raise error(f"{path} is not JSON: {broken.msg} at line {broken.lineno}, column {broken.colno}") from broken
    except RecursionError as deep:
        raise error(f"{path} is not read: its brackets are nested too deeply") from deep
    except ValueError as long:  # a number of more digits than Python converts
        raise error(f"{path} is not read: {long}") from long
