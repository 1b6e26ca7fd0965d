"""Reads Wikipedia dumps (.xml, .xml.gz, .xml.bz2, multistream .bz2) as documents of raw wikitext, in constant memory.

Redirects, other namespaces and pages without wikitext are dropped with a reason.
"""

import bz2
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from megadec.common.errors import InputError
from megadec.common.files import storage_errors
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.files import reading
from megadec.corpus.sources.mediawiki import READ_BYTES, PageParser
from megadec.corpus.sources.multistream import page_streams, read_streams
from megadec.corpus.sources.reading import ReadOptions

_MAGIC = {"bz2": b"BZh", "gz": b"\x1f\x8b"}
_OPEN: dict[str, Callable[[Path, Any], io.BufferedIOBase]] = {"bz2": bz2.open, "gz": gzip.open, "xml": open}


def read_zhwiki(path: Path, report: CorpusReport, options: ReadOptions, workers: int = 1) -> Iterator[Document]:
    """The articles of a dump as documents whose text is raw wikitext; pages left out are counted in `report`.

    `workers` > 1 reads a multistream .bz2 in that many processes; the order stays. Raises InputError, after the last
    whole page was given out, for a file that is missing, cut, damaged or no MediaWiki export.
    """
    kind = _kind(path)
    if kind == "bz2" and workers > 1:
        ranges = page_streams(path)
        if ranges is not None:
            yield from read_streams(path, ranges, report, workers)
            return
    parser = PageParser(str(path), report)
    with storage_errors(path), _OPEN[kind](path, "rb") as file:
        while data := _read(file, parser):
            yield from parser.feed(data)
    yield from parser.close()


def _read(file: io.BufferedIOBase, parser: PageParser) -> bytes:
    try:
        return file.read1(READ_BYTES)  # not read(): on an error that one loses what it has read so far
    except EOFError:
        raise parser.error("the compressed file is cut: it ends inside a stream") from None
    except (OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise parser.error(f"damaged compressed data ({error})") from None


def _kind(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path}: a folder: a dump is one file")
    with reading(str(path)), path.open("rb") as file:
        head = file.read(64)
    suffix = path.suffix.removeprefix(".").lower()
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        raise InputError(f"{path}: begins with {head[:8]!r}: a .{suffix} file begins with {_MAGIC[suffix]!r}")
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path}: begins with {head[:8]!r}: a dump is XML, plain or as .bz2 or .gz")
    return "xml"
