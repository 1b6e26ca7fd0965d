"""Input cut into pieces, which processes read by themselves and a run that is started again can skip.

How it is cut depends on the input alone, never on the number of workers; the documents of all pieces, one after the
other, are those of the undivided reading. A stream that cannot be entered in the middle (an archive, a large compressed
file) is read by who asks for the pieces, which then carry their documents.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from megadec.common.log import logger
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.archives import is_archive
from megadec.corpus.sources.cuts import RANGE_BYTES, LineCuts, line_ranges
from megadec.corpus.sources.encoding import UndecodableError
from megadec.corpus.sources.files import Entry, Member, NothingChosenError, entries, entry_in, reading
from megadec.corpus.sources.places import Place, is_folder, place_of
from megadec.corpus.sources.reading import FILES_READ, MALFORMED_ALLOWED, UNDECODABLE, ReadOptions, check_files

GROUP_BYTES = 4 << 20  # of small files of a folder
CARRIED_CHARACTERS = 1 << 20
COMPRESSED_WEIGHT = 4  # a compressed file's text is about so many times its size
OTHER_FILES = "files not read for their kind"

SHOWN_CHARACTERS = 200  # of a document that was dropped
# The document, the reason, the stage, and how many characters it had.
Drop = tuple[Document, str, str, int]

log = logger(__name__)


@dataclass(frozen=True)
class Piece:
    """A part of the input. Picklable, and small unless it carries its documents.

    name: unique in a run, and the same in the next one. path: the input that it is of. files: whole files of that
    folder; none: the input itself, of which `start` to `end` (bytes, or rows' groups; None: to the end) are read, and
    `first` is the number of the first line or row. documents, counts, drops: what was read already, and what was
    counted and dropped meanwhile; of a dropped document there is the beginning of its text.
    """

    name: str
    path: Place
    files: tuple[str, ...] = ()
    start: int = 0
    end: int | None = None
    first: int = 1
    documents: tuple[Document, ...] = ()
    counts: CorpusReport | None = None
    drops: tuple[Drop, ...] = ()


class Reader(Protocol):
    """How a kind of input is read: the documents of a path when it is called, or piece by piece."""

    def __call__(self, path: Place, report: CorpusReport, options: ReadOptions, /) -> Iterator[Document]: ...

    def pieces(self, path: Place, options: ReadOptions) -> Iterator[Piece]: ...

    def read_piece(self, piece: Piece, report: CorpusReport, options: ReadOptions) -> Iterator[Document]: ...


def pieces(reader: Reader, inputs: Iterable[Place], options: ReadOptions) -> Iterator[Piece]:
    """All pieces of the inputs, in order. An input that is named twice is read twice.

    Raises InputError for what is missing or damaged, after the pieces before it, and where options leave out all files
    of all inputs; those of one are told as a warning.
    """
    seen: dict[str, int] = {}
    unread: list[NothingChosenError] = []
    for path in map(place_of, inputs):
        again = seen.setdefault(str(path), 0)
        seen[str(path)] += 1
        try:
            for piece in reader.pieces(path, options):
                yield replace(piece, name=f"{piece.name} again {again}") if again else piece
        except NothingChosenError as error:
            unread.append(error)
    if unread and len(unread) == sum(seen.values()):
        raise unread[0]
    for told in unread:
        log.warning("%s", told)


def read_piece(piece: Piece, reader: Reader, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """The documents of a piece; what is dropped or noted while they are read goes to `report`. Raises InputError."""
    if piece.counts is not None:
        report.merge(piece.counts)
        if report.on_drop:
            for drop in piece.drops:
                report.on_drop(*drop)
        yield from piece.documents
    else:
        yield from reader.read_piece(piece, report, options)


@dataclass(frozen=True)
class FileReader:
    """Reads documents file by file.

    suffixes: of the files that are read in a folder or archive. documents: those of one file or part. cuts: where a
    plain file may be cut, None for nowhere; asked with the whole file open.
    """

    suffixes: tuple[str, ...]
    documents: Callable[[Member, CorpusReport, ReadOptions], Iterator[Document]]
    cuts: Callable[[Member, ReadOptions], LineCuts | None] = lambda member, options: None

    def __call__(self, path: Place, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """All documents at `path`. Raises InputError for what is missing, damaged or in another encoding."""
        for entry in self._entries(path, report, options):
            yield from self._whole(entry, report, options)
        check_files(report, options)

    def pieces(self, path: Place, options: ReadOptions) -> Iterator[Piece]:
        """See `pieces` above."""
        if is_archive(str(path)) and not is_folder(path):
            report = CorpusReport()
            yield from carried(str(path), path, self(path, report, options), report)
            return
        group: list[Entry] = []
        total = 0
        passed = CorpusReport()
        for entry in self._entries(path, passed, options):
            weight = _weight(entry)
            if group and total + weight > GROUP_BYTES:
                yield _grouped(group)
                group, total = [], 0
            if weight > RANGE_BYTES:
                yield from self._of_large(entry, options)
            else:
                group.append(entry)
                total += weight
        if group:
            yield _grouped(group)
        if passed.notes:
            yield Piece(f"{path}: {OTHER_FILES}", path, counts=passed)

    def read_piece(self, piece: Piece, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        """The documents of a piece that carries none."""
        for inner in piece.files or ("",):
            entry = entry_in(piece.path, inner)
            if piece.end is None:
                yield from self._whole(entry, report, options)
            else:
                with entry.part(piece.start, piece.end, piece.first) as member:
                    if not piece.start:
                        report.note(FILES_READ)
                    yield from self.documents(member, report, options)

    def _entries(self, path: Place, report: CorpusReport, options: ReadOptions) -> Iterator[Entry]:
        return entries(path, self.suffixes, options, lambda suffix: report.note(f"{OTHER_FILES}: {suffix or 'none'}"))

    def _whole(self, entry: Entry, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
        report.note(FILES_READ)
        try:
            with entry.open() as member:
                yield from self.documents(member, report, options)
        except UndecodableError as error:
            if not entry.inner:
                raise
            # A sample begins with the id, which is the name, and what to do about it is said at the end.
            found = str(error).removeprefix(f"{entry.name}: ").partition("; ")[0]
            report.drop(Document(entry.name, "", "", title=found), UNDECODABLE)
            if report.dropped[UNDECODABLE] > MALFORMED_ALLOWED:  # a share of few files says nothing yet
                check_files(report, options)

    def _of_large(self, entry: Entry, options: ReadOptions) -> Iterator[Piece]:
        ranges = None
        if isinstance(entry.root, Path) and not entry.compressed:
            with entry.open() as member:
                cuts = self.cuts(member, options)
            if cuts:
                with reading(entry.name), entry.opener() as file:
                    ranges = line_ranges(file, cuts)
        if ranges is None:
            report = CorpusReport()
            yield from carried(entry.name, entry.root, self._whole(entry, report, options), report)
            return
        files = (entry.inner,) if entry.inner else ()
        for start, end, first in ranges:
            yield Piece(f"{entry.name}:{start}-{end}", entry.root, files, start, end, first)


def _weight(entry: Entry) -> int:
    """About how many bytes of text a file has."""
    assert entry.size is not None or "://" in str(entry.root), "only servers say no size"
    size = RANGE_BYTES + 1 if entry.size is None else entry.size
    return size * COMPRESSED_WEIGHT if entry.compressed else size


def _grouped(group: list[Entry]) -> Piece:
    first, last = group[0], group[-1]
    if not first.inner:
        return Piece(first.name, first.root)
    name = first.name if first is last else f"{first.name} to {last.inner}"
    return Piece(name, first.root, tuple(entry.inner for entry in group))


def carried(name: str, path: Place, documents: Iterator[Document], report: CorpusReport) -> Iterator[Piece]:
    """Pieces with the documents of a reader, and what it counted in `report` and dropped meanwhile."""
    number, chunk, characters = 0, list[Document](), 0
    drops: list[Drop] = []

    def listen(document: Document, reason: str, stage: str, raw_characters: int) -> None:
        drops.append((replace(document, text=document.text[:SHOWN_CHARACTERS]), reason, stage, raw_characters))

    def piece() -> Piece:
        made = Piece(
            f"{name}#{number}", path, documents=tuple(chunk), counts=replace(report, on_drop=None), drops=tuple(drops)
        )
        # A reader holds on to its report, which begins anew.
        vars(report).update(vars(CorpusReport(on_drop=listen)))
        drops.clear()
        return made

    report.on_drop = listen
    for document in documents:
        chunk.append(document)
        characters += len(document.text)
        if characters >= CARRIED_CHARACTERS:
            yield piece()
            number, chunk, characters = number + 1, [], 0
    yield piece()
