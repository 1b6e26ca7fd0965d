"""Reads Wikipedia dumps (.xml, .xml.bz2 of one stream or many, .xml.gz) as documents of wikitext, in constant memory.

Redirects, other namespaces and pages without wikitext are dropped with a reason. A piece of a dump holds the pages that
begin in a range of its bytes, or of its bzip2 blocks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.bzip2 import DamageError, block_starts, blocks
from megadec.corpus.sources.files import Entry, entry_in, reading
from megadec.corpus.sources.mediawiki import READ_BYTES, PageParser, page_range
from megadec.corpus.sources.pieces import Piece, carried
from megadec.corpus.sources.places import Place, is_folder, place_of
from megadec.corpus.sources.reading import ReadOptions

_MAGIC = {"bz2": b"BZh", "gz": b"\x1f\x8b"}
XML_PIECE_BYTES, BZIP2_PIECE_BYTES = 8 << 20, 2 << 20


@dataclass(frozen=True)
class DumpReader:
    """Reads one dump: whole when it is called, or by pieces."""

    def __call__(self, path: Place, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """The articles of a dump as documents whose text is raw wikitext; pages left out are counted in `report`.

        Raises InputError, after the last whole page was given out, for a file that is missing, cut, damaged or no
        MediaWiki export.
        """
        path = place_of(path)
        kind = _kind(path)
        parser = PageParser(str(path), report)
        contents: Iterator[bytes]
        if isinstance(path, Path) and kind != "gz":
            found = _blocks(path, 0, parser) if kind == "bz2" else _bytes(path, 0, None)
            contents = (content for _, content in found)
        else:
            contents = _stream(entry_in(path, ""))
        for data in contents:
            yield from parser.feed(data)
        yield from parser.close()

    def pieces(self, path: Place, options: ReadOptions) -> Iterator[Piece]:
        """Ranges of bytes of plain XML, of blocks of bzip2; any other dump is read here."""
        kind = _kind(path)
        if not isinstance(path, Path) or kind == "gz":
            report = CorpusReport()
            yield from carried(str(path), path, self(path, report, options), report)
            return
        for start, end in _bzip2_ranges(path) if kind == "bz2" else _ranges(path):
            yield Piece(f"{path}:{start}", path, (), start, end)

    def read_piece(self, piece: Piece, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """The pages that begin in a range. The first one tells that a file is no dump, the last that it is cut."""
        path = piece.path
        assert isinstance(path, Path)
        bzip2 = _kind(path) == "bz2"
        unit = "bit" if bzip2 else "byte"
        name = f"{path} (from {unit} {piece.start:,})" if piece.start else str(path)
        parser = PageParser(name, report, opened=piece.start > 0)
        contents = _blocks(path, piece.start, parser) if bzip2 else _bytes(path, piece.start, piece.end)
        for data in page_range(contents, piece.start, piece.end):
            yield from parser.feed(data)
        yield from parser.close()


read_zhwiki = DumpReader()


def _ranges(path: Path) -> Iterator[tuple[int, int | None]]:
    size = path.stat().st_size
    for start in range(0, size, XML_PIECE_BYTES):
        end = start + XML_PIECE_BYTES
        yield start, end if end < size else None


def _bzip2_ranges(path: Path) -> Iterator[tuple[int, int | None]]:
    start = 0
    with reading(str(path)), path.open("rb") as file:
        for bit in block_starts(file):
            if bit - start >= 8 * BZIP2_PIECE_BYTES:
                yield start, bit
                start = bit
    yield start, None


def _bytes(path: Path, start: int, end: int | None) -> Iterator[tuple[int, bytes]]:
    """(its place, data) of each block of a plain file from byte `start` on; one begins at `end`."""
    with reading(str(path)), path.open("rb") as file:
        file.seek(start)
        while data := file.read(min(READ_BYTES, end - start) if end is not None and start < end else READ_BYTES):
            yield start, data
            start += len(data)


def _blocks(path: Path, start: int, parser: PageParser) -> Iterator[tuple[int, bytes]]:
    try:
        with reading(str(path)):
            yield from blocks(path, start)
    except DamageError as error:
        raise parser.error(str(error)) from None


def _stream(entry: Entry) -> Iterator[bytes]:
    with entry.open() as member:
        yield from member.blocks()


def _kind(path: Place) -> str:
    if is_folder(path):
        raise InputError(f"{path}: a folder: a dump is one file")
    entry = entry_in(path, "")
    with reading(str(path)), entry.opener() as file:
        head = file.read(64)
    suffix = str(path).rpartition(".")[2].lower()
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        raise InputError(f"{path}: begins with {head[:8]!r}: a .{suffix} file begins with {_MAGIC[suffix]!r}")
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path}: begins with {head[:8]!r}: a dump is XML, plain or as .bz2 or .gz")
    return "xml"
