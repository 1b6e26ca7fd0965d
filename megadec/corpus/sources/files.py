"""Files to read, wherever they lie: alone, in folders, compressed, or inside archives, which are streamed.

In: a path. Out: its members one at a time, each an open stream of bytes. An archive is never unpacked and never sought
in, so its members come in its own order and cannot be read twice.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any

import pyarrow as pa

from megadec.common.errors import InputError
from megadec.common.log import logger
from megadec.corpus.sources.reading import ReadOptions

_DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, pa.ArrowException)
_Entry = tuple[PurePosixPath, Callable[[], Any]]
_TAR = re.compile(r"\.(?:tar(?:\.(?:xz|bz2|gz|zst))?|txz|tbz2|tgz)$", re.IGNORECASE)
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1

log = logger(__name__)


@dataclass(frozen=True)
class Member:
    """One file to read: `name` for messages, `path` within the folder or archive (the file's own name if alone)."""

    name: str
    path: PurePosixPath
    file: IO[bytes]

    @property
    def stem(self) -> str:
        """The path without the suffix."""
        return self.path.with_suffix("").as_posix()


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong while bytes are read into an InputError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file or folder") from None
    except _DAMAGE as error:
        raise InputError(f"{name}: cannot be read, it is damaged or cut short: {error}") from error


def members(path: Path, suffixes: Sequence[str], options: ReadOptions) -> Iterator[Member]:
    """The files at `path`: itself, or those inside it with one of the `suffixes` (before .xz and the like).

    `options.include` and `options.exclude` are patterns over the path inside a folder or archive. Hidden files are left
    out. Raises InputError for what is missing, damaged or cut short.
    """
    with reading(str(path)):
        if path.is_dir():
            found = _in_folder(path)
        elif path.suffix.lower() == ".zip":
            found = _in_zip(path)
        elif _TAR.search(path.name):
            found = _in_tar(path)
        else:
            with _decompressed(path.name, open(path, "rb")) as file:
                yield Member(str(path), PurePosixPath(_plain_name(path.name)), file)
            return
    yield from _chosen(path, found, suffixes, options)


def _chosen(path: Path, found: Iterator[_Entry], suffixes: Sequence[str], options: ReadOptions) -> Iterator[Member]:
    while True:
        with reading(str(path)):
            entry = next(found, None)
        if entry is None:
            return
        inner, open_it = entry
        plain = PurePosixPath(_plain_name(inner.as_posix()))
        hidden = any(part.startswith(".") for part in inner.parts)
        if not hidden and (_TAR.search(inner.name) or inner.suffix.lower() == ".zip"):
            log.warning("%s is an archive inside of %s and is not read: name the archive itself", inner, path)
            continue
        if plain.suffix.lower() not in suffixes or hidden or not wanted(plain.as_posix(), options):
            continue
        name = f"{path}:{inner}" if path.is_file() else str(path / inner)
        with reading(name):
            raw = open_it()
        with _decompressed(inner.name, raw) as file:
            yield Member(name, plain, file)


def wanted(name: str, options: ReadOptions) -> bool:
    """Whether a path inside a folder or archive is read: the patterns of `include` and `exclude`."""
    if options.include and not any(fnmatch(name, pattern) for pattern in options.include):
        return False
    return not any(fnmatch(name, pattern) for pattern in options.exclude)


def _in_folder(folder: Path) -> Iterator[_Entry]:
    # Sorted a folder at a time: the same order everywhere, and never all names of a large tree in memory.
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            for inner, open_it in _in_folder(entry):
                yield PurePosixPath(entry.name) / inner, open_it
        elif entry.is_file():
            yield PurePosixPath(entry.name), partial(entry.open, "rb")


def _in_zip(path: Path) -> Iterator[_Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{path}: {info.filename} is encrypted; unpack it first")
            if not info.is_dir():
                yield PurePosixPath(_zip_name(info)), partial(archive.open, info)


def _in_tar(path: Path) -> Iterator[_Entry]:
    with _decompressed(path.name, open(path, "rb")) as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for entry in tar:
            if entry.isfile():
                inner = PurePosixPath(*(part for part in PurePosixPath(entry.name).parts if part not in ("/", "..")))
                yield inner, partial(tar.extractfile, entry)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the UTF-8 flag were read as cp437; archives from Chinese Windows hold GBK there."""
    for encoding in () if info.flag_bits & _UTF8_NAME else ("utf-8", "gb18030"):
        with suppress(UnicodeError):
            return info.filename.encode("cp437").decode(encoding)
    return info.filename


_OPENERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys((".xz", ".txz"), lzma.LZMAFile),
    **dict.fromkeys((".bz2", ".tbz2"), bz2.BZ2File),
    **dict.fromkeys((".gz", ".tgz"), lambda file: gzip.GzipFile(fileobj=file)),
    ".zst": lambda file: io.BufferedReader(pa.CompressedInputStream(file, "zstd")),  # pyarrow's own has no lines
}


@contextmanager
def _decompressed(name: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    opener = _OPENERS.get(PurePosixPath(name).suffix.lower(), nullcontext)
    with file, opener(file) as plain:
        yield plain


def _plain_name(name: str) -> str:
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in _OPENERS else name
