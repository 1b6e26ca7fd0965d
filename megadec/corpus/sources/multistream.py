"""Reads a multistream dump in parallel: its bzip2 streams go to a pool of processes, the order is kept.

Each stream begins with a page (Wikimedia puts 100 pages in one). Streams are found by their magic bytes, about as fast
as through the index file that Wikimedia puts beside a dump.
"""

import bz2
import mmap
import re
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path

from megadec.common.errors import InputError
from megadec.common.files import storage_errors
from megadec.corpus.document import Document
from megadec.corpus.parallel import map_in_order
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.mediawiki import PageParser

LEAST_TASK_BYTES = 1 << 16

# "BZh", the level, and the 48-bit magic of a block: nothing else in compressed data looks like this.
_STREAM_START = re.compile(rb"BZh[1-9]1AY&SY")
_PAGE_START = re.compile(rb"\s*<page>")
_ROOT_END = b"</mediawiki>"


def page_streams(path: Path) -> list[tuple[int, int]] | None:
    """Byte ranges of the file that begin with a page (the first with the header); None where streams are not so cut."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        starts = [match.start() for match in _STREAM_START.finditer(data)]
        if len(starts) < 3 or not _begins_with_page(data[starts[1] : starts[1] + (1 << 20)]):
            return None
        kept = starts[:1]
        for start in starts[1:]:
            if start - kept[-1] >= LEAST_TASK_BYTES:  # tiny streams share a task
                kept.append(start)
        return list(pairwise([*kept, len(data)]))


def read_streams(path: Path, ranges: list[tuple[int, int]], report: CorpusReport, workers: int) -> Iterator[Document]:
    """The articles of all ranges in order; each range is one task.

    Raises InputError as the sequential reader does, after the pages before the damage were given out.
    """
    with closing(map_in_order(partial(_read_range, path, path.stat().st_size), ranges, workers)) as answers:
        for documents, counts, failure in answers:
            report.merge(counts)
            yield from documents
            if failure:
                raise InputError(failure)


def _read_range(path: Path, size: int, start_end: tuple[int, int]) -> tuple[list[Document], CorpusReport, str]:
    """In a worker: the articles of a range, their counts, and the message of what stopped the reading, if any."""
    start, end = start_end
    report = CorpusReport()
    documents: list[Document] = []
    parser = PageParser(f"{path} (stream at byte {start:,})", report, opened=start > 0)
    tail = b""
    try:
        for data in _decompressed(path, start, end, parser):
            tail = (tail + data)[-64:]
            documents.extend(parser.feed(data))
        if not tail.rstrip().endswith(_ROOT_END):
            if end == size:
                raise parser.error("the dump is cut: no </mediawiki> at its end,")
            documents.extend(parser.feed(_ROOT_END))
        documents.extend(parser.close())
    except InputError as error:
        return documents, report, str(error)
    return documents, report, ""


def _decompressed(path: Path, start: int, end: int, parser: PageParser) -> Iterator[bytes]:
    """The contents of each stream in a range."""
    with storage_errors(path), path.open("rb") as file:
        file.seek(start)
        left = file.read(end - start)
    while left:
        stream = bz2.BZ2Decompressor()
        try:
            data = stream.decompress(left)
        except OSError as error:
            raise parser.error(f"damaged compressed data ({error})") from None
        yield data
        if not stream.eof:
            raise parser.error("the compressed file is cut: it ends inside a stream")
        left = stream.unused_data


def _begins_with_page(head: bytes) -> bool:
    try:
        return _PAGE_START.match(bz2.BZ2Decompressor().decompress(head, 4096)) is not None
    except OSError:
        return False
