"""What is packed: compressed files and archives, as open streams of bytes.

An archive is never unpacked and never sought in, so its files come in its own order and cannot be read twice.
"""

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa

from megadec.common.errors import InputError

Opened = tuple[PurePosixPath, Callable[[], IO[bytes]]]
_TAR = re.compile(r"\.(?:tar(?:\.(?:xz|bz2|gz|zst))?|txz|tbz2|tgz)$", re.IGNORECASE)
_UTF8_NAME = 0x800
_ENCRYPTED = 0x1
_OPENERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys((".xz", ".txz"), lzma.LZMAFile),
    **dict.fromkeys((".bz2", ".tbz2"), bz2.BZ2File),
    **dict.fromkeys((".gz", ".tgz"), lambda file: gzip.GzipFile(fileobj=file)),
    ".zst": lambda file: io.BufferedReader(pa.CompressedInputStream(file, "zstd")),  # pyarrow's own has no lines
}


def is_archive(name: str) -> bool:
    """Whether a file of this name holds files."""
    return bool(_TAR.search(name)) or name.lower().endswith(".zip")


def is_compressed(name: str) -> bool:
    """Whether a file of this name is decompressed as it is read."""
    return PurePosixPath(name).suffix.lower() in _OPENERS


def plain_name(name: str) -> str:
    """The name without the suffix of its compression."""
    return name.removesuffix(PurePosixPath(name).suffix) if is_compressed(name) else name


@contextmanager
def decompressed(name: str, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The content of an open file, which is closed afterwards; the name's suffix says how it is compressed."""
    opener = _OPENERS.get(PurePosixPath(name).suffix.lower(), nullcontext)
    with file, opener(file) as plain:
        yield plain


def in_archive(name: str, file: IO[bytes]) -> Iterator[Opened]:
    """The files of an archive that is open: their paths, and how each is opened, before the next is asked for."""
    return _in_zip(name, file) if name.lower().endswith(".zip") else _in_tar(name, file)


def _in_zip(name: str, file: IO[bytes]) -> Iterator[Opened]:
    with file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & _ENCRYPTED:
                raise InputError(f"{name}: {info.filename} is encrypted; unpack it first")
            if not info.is_dir():
                yield PurePosixPath(_zip_name(info)), partial(archive.open, info)


def _in_tar(name: str, file: IO[bytes]) -> Iterator[Opened]:
    with decompressed(name, file) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        for entry in tar:
            if entry.isfile():
                inner = PurePosixPath(*(part for part in PurePosixPath(entry.name).parts if part not in ("/", "..")))
                yield inner, partial(_extracted, tar, entry)


def _extracted(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(entry)
    assert file is not None, "only regular files are asked for"
    return file


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Names without the UTF-8 flag were read as cp437; archives from Chinese Windows hold GBK there."""
    for encoding in () if info.flag_bits & _UTF8_NAME else ("utf-8", "gb18030"):
        with suppress(UnicodeError):
            return info.filename.encode("cp437").decode(encoding)
    return info.filename
