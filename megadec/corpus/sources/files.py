"""Files to read, wherever they lie: alone, in folders, compressed, or inside archives.

In: a path or an fsspec address. Out: its files one at a time, each an open stream of bytes, or a part of one.
"""

import lzma
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property, partial
from pathlib import PurePosixPath
from typing import IO

import pyarrow as pa

from megadec.common.errors import InputError
from megadec.common.log import logger
from megadec.corpus.sources.archives import decompressed, in_archive, is_archive, is_compressed, plain_name
from megadec.corpus.sources.places import Place, files_in, is_folder, open_place, place_of, size_of, within
from megadec.corpus.sources.reading import ReadOptions

BLOCK_BYTES = 1 << 20
MOST_SUFFIXES = 10  # that a message names
_DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile, pa.ArrowException)

log = logger(__name__)


class NothingChosenError(InputError):
    """Options, or what its files are for, leave out all files of an input; another input may still have some."""


@dataclass
class Member:
    """One file to read, or a part of it.

    name: for messages. path: within the folder or archive (the file's own name if alone), without a suffix of
    compression. file: open where the part begins. start, end: bytes of the file that the part is (None: to its end).
    line: number of the part's first line. opening: the file's first block, where the part is not its beginning.
    root: the input that it was found in.
    """

    name: str
    path: PurePosixPath
    file: IO[bytes]
    start: int = 0
    end: int | None = None
    line: int = 1
    opening: bytes = b""
    root: Place = ""

    @property
    def stem(self) -> str:
        """The path without the suffix."""
        return self.path.with_suffix("").as_posix()

    @property
    def whole(self) -> bool:
        """Whether this is all of the file."""
        return self.start == 0 and self.end is None

    @cached_property
    def head(self) -> bytes:
        """The first block of the file, which tells its encoding and form."""
        return self.opening or self._first

    def blocks(self) -> Iterator[bytes]:
        """The bytes of this part; once only."""
        yield self._first
        left = None if self.end is None else self.end - self.start - len(self._first)
        while block := self._read(left):
            left = None if left is None else left - len(block)
            yield block

    @cached_property
    def _first(self) -> bytes:
        return self._read(None if self.end is None else self.end - self.start)

    def _read(self, left: int | None) -> bytes:
        with reading(self.name):
            return self.file.read(BLOCK_BYTES if left is None else min(left, BLOCK_BYTES))


@dataclass(frozen=True)
class Entry:
    """A file that was found and is not open yet: `inner` is its path in the folder `root`, empty if it stands alone.

    size: its bytes as they lie there, None where that is not known or it lies in an archive.
    """

    root: Place
    inner: str
    size: int | None
    opener: Callable[[], IO[bytes]]

    @property
    def name(self) -> str:
        """For messages."""
        if not self.inner:
            return str(self.root)
        return f"{self.root}:{self.inner}" if is_archive(str(self.root)) else str(within(self.root, self.inner))

    @property
    def path(self) -> PurePosixPath:
        """The path inside, without the suffix of a compression."""
        return PurePosixPath(plain_name(self.inner or PurePosixPath(str(self.root)).name))

    @property
    def compressed(self) -> bool:
        return is_compressed(self.inner or str(self.root))

    @contextmanager
    def open(self) -> Iterator[Member]:
        """The whole file."""
        with reading(self.name):
            raw = self.opener()
        with decompressed(self.inner or str(self.root), raw) as file:
            yield Member(self.name, self.path, file, root=self.root)

    @contextmanager
    def part(self, start: int, end: int | None, line: int) -> Iterator[Member]:
        """The bytes from `start` to `end` of a file that is not compressed; its first line has the number `line`."""
        with reading(self.name):
            file = self.opener()
        with file:
            with reading(self.name):
                opening = file.read(BLOCK_BYTES) if start else b""
                file.seek(start)
            yield Member(self.name, self.path, file, start, end, line, opening, self.root)


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what goes wrong while bytes are read into an InputError that names the file."""
    try:
        yield
    except FileNotFoundError:
        raise InputError(f"{name}: no such file or folder") from None
    except _DAMAGE as error:
        raise InputError(f"{name}: cannot be read, it is damaged or cut short: {error}") from error


def members(path: Place, suffixes: Sequence[str], options: ReadOptions) -> Iterator[Member]:
    """The files at `path`: itself, or those inside it with one of the `suffixes` (before .xz and the like).

    `options.include` and `options.exclude` are patterns over the path inside a folder or archive. Hidden files are left
    out. Raises InputError for what is missing, damaged or cut short, and for a folder or archive without such a file.
    """
    for entry in entries(path, suffixes, options):
        with entry.open() as member:
            yield member


def entries(
    path: Place, suffixes: Sequence[str], options: ReadOptions, passed: Callable[[str], None] = lambda name: None
) -> Iterator[Entry]:
    """The same, not yet open; each must be done with before the next is asked for. `passed` is told of each file that
    is not read for its suffix."""
    path = place_of(path)
    if is_folder(path):
        found = _in_folder(path)
    elif is_archive(str(path)):
        found = _in_archive(path)
    else:
        with reading(str(path)):
            size = size_of(path)
        yield Entry(path, "", size, partial(open_place, path))
        return
    names, others, chosen = 0, Counter[str](), False

    def listen(suffix: str) -> None:
        others[suffix or "without a suffix"] += 1
        passed(suffix)

    while True:
        with reading(str(path)):
            entry = next(found, None)
        if entry is None:
            break
        names += 1
        if _chosen(entry, suffixes, options, listen):
            chosen = True
            yield entry
    if not chosen:
        raise _none_chosen(path, suffixes, options, names, others)


def entry_in(folder: Place, inner: str) -> Entry:
    """A file of a folder, by its path in it; "": the file itself."""
    place = within(folder, inner) if inner else folder
    return Entry(folder, inner, None, partial(open_place, place))


def wanted(name: str, options: ReadOptions) -> bool:
    """Whether a path inside a folder or archive is read: the patterns of `include` and `exclude`."""
    if options.include and not any(fnmatch(name, pattern) for pattern in options.include):
        return False
    return not any(fnmatch(name, pattern) for pattern in options.exclude)


def unmatched(inputs: Iterable[Place], patterns: Sequence[str]) -> list[str]:
    """The patterns that no path in the folders among the inputs matches.

    None where an archive is among the inputs, whose paths are known when it is read. Raises InputError.
    """
    left = list(patterns)
    for path in map(place_of, inputs):
        if not is_folder(path):
            if is_archive(str(path)):
                return []
            continue
        with reading(str(path)):
            for name, _ in files_in(path):
                if not left:
                    return []
                left = [pattern for pattern in left if not fnmatch(name, pattern)]
    return left


def _none_chosen(
    path: Place, suffixes: Sequence[str], options: ReadOptions, names: int, others: Counter[str]
) -> InputError:
    """What to say of `names` files, none of which is read, `others` of them for their suffix."""
    if others:
        found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(MOST_SUFFIXES))
        more = ", ..." if len(others) > MOST_SUFFIXES else ""
        kinds = f"files with {', '.join(suffixes)} are looked for, found were {found}{more}"
        return InputError(f"{path}: no file to read: {kinds}: is it another source?")
    patterns = [f"--{name} {' '.join(given)}" for name in ("include", "exclude") if (given := getattr(options, name))]
    if names and patterns:
        return NothingChosenError(
            f"{path}: no file to read: {' with '.join(patterns)} leaves none of its {names} files"
        )
    return InputError(f"{path}: no file to read: {'only hidden files' if names else 'it is empty'}")


def _chosen(entry: Entry, suffixes: Sequence[str], options: ReadOptions, passed: Callable[[str], None]) -> bool:
    plain = entry.path
    if any(part.startswith(".") for part in plain.parts) or not wanted(plain.as_posix(), options):
        return False
    if is_archive(entry.inner):
        log.warning("%s is an archive inside of %s and is not read: name the archive itself", entry.inner, entry.root)
    elif plain.suffix.lower() in suffixes:
        return True
    passed(plain.suffix)
    return False


def _in_folder(folder: Place) -> Iterator[Entry]:
    for inner, size in files_in(folder):
        yield Entry(folder, inner, size, partial(open_place, within(folder, inner)))


def _in_archive(path: Place) -> Iterator[Entry]:
    for inner, opener in in_archive(str(path), open_place(path)):
        yield Entry(path, inner.as_posix(), None, opener)
