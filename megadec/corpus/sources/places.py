"""Where input lies: a file or folder on this machine, or at any address that fsspec knows (s3://, https://, hf://).

In: a path or an address. Out: what lies there and open files. Remote files are read as streams, in ranges where the
server has them.
"""

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from megadec.common.errors import ConfigError

Place = Path | str
LOCAL_SCHEME = "file://"
UNLISTED = ("http://", "https://")
READ_AHEAD_BYTES = 4 << 20


def place_of(name: Place) -> Place:
    """A path, or an address as it is, from what a user wrote."""
    text = str(name).removeprefix(LOCAL_SCHEME)
    return text if "://" in text else Path(text)


def is_file(place: Place) -> bool:
    return place.is_file() if isinstance(place, Path) else bool(_at(place)[0].isfile(_at(place)[1]))


def is_folder(place: Place) -> bool:
    """Over http, which knows no folders, an address that ends with a slash is a page of links to files."""
    if isinstance(place, Path):
        return place.is_dir()
    return place.endswith("/") if place.startswith(UNLISTED) else bool(_at(place)[0].isdir(_at(place)[1]))


def exists(place: Place) -> bool:
    return place.exists() if isinstance(place, Path) else bool(_at(place)[0].exists(_at(place)[1]))


def size_of(place: Place) -> int | None:
    """Bytes of a file; None where the server does not say."""
    if isinstance(place, Path):
        return place.stat().st_size
    files, path = _at(place)
    return cast("int | None", files.info(path).get("size"))


def within(folder: Place, inner: str) -> Place:
    """The place of a file inside a folder."""
    return folder / inner if isinstance(folder, Path) else f"{folder.rstrip('/')}/{inner}"


def beside(file: Place, name: str) -> Place:
    """The place of a file in the same folder."""
    return file.with_name(name) if isinstance(file, Path) else f"{file.rpartition('/')[0]}/{name}"


def open_place(place: Place) -> IO[bytes]:
    """The file, open for reading."""
    if isinstance(place, Path):
        return open(place, "rb")
    files, path = _at(place)
    return cast(IO[bytes], files.open(path, "rb", block_size=READ_AHEAD_BYTES))


def files_in(folder: Place) -> Iterator[tuple[str, int | None]]:
    """The files below a folder with their sizes, sorted a folder at a time: the same order everywhere.

    Never all names of a large tree are in memory, except where a server lists them all at once.
    """
    if isinstance(folder, Path):
        yield from _in_folder(os.fspath(folder), "")
        return
    files, root = _at(folder)
    found: dict[str, Any] = files.find(root, detail=True)
    names = {str(PurePosixPath(path).relative_to(root.rstrip("/") or "/")): info for path, info in found.items()}
    for name in sorted(names, key=lambda name: name.split("/")):
        yield name, names[name].get("size")


def versions_of(address: str) -> Iterator[list[str]]:
    """What a server says of the files at an address, which changes with them: names, sizes, times, tags."""
    files, path = _at(address)
    found = files.find(path, detail=True) if is_folder(address) else {path: files.info(path)}
    for name in sorted(found):
        yield [name, *(str(found[name].get(key, "")) for key in ("size", "ETag", "mtime", "LastModified", "created"))]


def _in_folder(folder: str, inside: str) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            yield from _in_folder(entry.path, f"{inside}{entry.name}/")
        elif entry.is_file():
            yield inside + entry.name, entry.stat().st_size


@cache
def _at(address: str) -> tuple[Any, str]:
    """The file system of an address and the path in it. Raises ConfigError where fsspec cannot read it here."""
    from fsspec.core import url_to_fs  # only where an address is given

    try:
        files, path = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{address}: fsspec cannot read it here: {' '.join(str(error).split())}") from error
    return files, str(path)
