"""Wikipedia dumps -> documents of raw wikitext, in the dump's order and in constant memory.

In: a MediaWiki export (.xml, .xml.gz, .xml.bz2, multistream .bz2). Out: a document an article; redirects, other
namespaces and pages without wikitext are dropped with a reason. Trade-off: only a multistream dump is read in parallel
(multistream.py); a single bzip2 stream can only be read from its beginning.

Format: https://www.mediawiki.org/wiki/Help:Export and the schema export-0.11.xsd.
"""

from __future__ import annotations

import bz2
import gzip
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from megadec.common.errors import InputError
from megadec.common.files import storage_errors
from megadec.corpus.document import Document
from megadec.corpus.report import Report

SOURCE, LICENCE = "zhwiki", "CC-BY-SA-4.0"
OTHER_NAMESPACE, REDIRECT, NOT_WIKITEXT, NO_TEXT = "other_namespace", "redirect", "not_wikitext", "no_text"
READ_BYTES = 1 << 18

_REDIRECT = re.compile(r"\s*#(?:redirect|重定向)\s*:?\s*\[\[", re.IGNORECASE)
_NOT_IN_ADDRESS = re.compile(r'[%?#"&+\\^`{|}<>]')
_MAGIC = {"bz2": b"BZh", "gz": b"\x1f\x8b"}


def read_zhwiki(path: Path, report: Report, *, workers: int = 1) -> Iterator[Document]:
    """The articles of a dump as documents whose text is raw wikitext; pages left out are counted in `report`.

    `workers` > 1 reads a multistream .bz2 in that many processes; the order stays. Raises InputError, after the last
    whole page was given out, for a file that is missing, cut, damaged or no MediaWiki export.
    """
    from megadec.corpus.sources import multistream  # it imports this module

    path = Path(path)
    kind = _kind(path)
    if kind == "bz2" and workers > 1:
        ranges = multistream.page_streams(path)
        if ranges is not None:
            yield from multistream.read_streams(path, ranges, report, workers=workers)
            return
    with storage_errors(path), _open(path, kind) as file:
        yield from read_pages(file, PageParser(str(path)), report)


class PageParser:
    """An export as chunks of bytes -> documents and drop reasons; keeps what an error message needs to name."""

    def __init__(self, name: str, *, opened: bool = False) -> None:
        """`opened`: the bytes begin between two pages, as in the streams of a multistream dump."""
        self.name = name
        self.bytes_read = 0
        self.last_page = "none"
        self._parser = ElementTree.XMLPullParser(("start", "end"))
        self._root: ElementTree.Element | None = None
        if opened:
            self._parser.feed(b"<mediawiki>")

    def feed(self, data: bytes) -> Iterator[tuple[Document, str]]:
        """The pages that end in this chunk, each with its drop reason (empty: an article)."""
        try:
            self._parser.feed(data)
            yield from self._pages()
        except ElementTree.ParseError as error:
            raise self.error(f"damaged XML ({error})") from None
        self.bytes_read += len(data)

    def close(self) -> None:
        """Raises InputError when the XML does not end here."""
        try:
            self._parser.close()
        except ElementTree.ParseError as error:
            raise self.error(f"the XML is cut ({error})") from None
        if self._root is None:
            raise self.error("no XML in it")

    def error(self, found: str) -> InputError:
        """An InputError that tells how far the dump could be read."""
        return InputError(
            f"{self.name}: {found} after {self.bytes_read:,} bytes of XML, last whole page: {self.last_page}; "
            "a dump must be whole: fetch it again and compare its checksum"
        )

    def _pages(self) -> Iterator[tuple[Document, str]]:
        for event, element in self._parser.read_events():
            if self._root is None:
                self._root = element
                if _local(element.tag) != "mediawiki":
                    raise InputError(f"{self.name}: root element <{_local(element.tag)}>: a dump's is <mediawiki>")
            elif event == "end" and _local(element.tag) == "page":
                page = _page(element, self)
                self.last_page = f"{page[0].id} {page[0].title}"
                yield page
                # The root keeps every child it has seen: without this a dump would grow in memory.
                self._root.clear()


def read_pages(file: IO[bytes], parser: PageParser, report: Report) -> Iterator[Document]:
    """The articles in an open, decompressed file."""
    while data := _read(file, parser):
        for document, reason in parser.feed(data):
            report.read()
            if reason:
                report.drop(document, reason)
            else:
                yield document
    parser.close()


def _read(file: IO[bytes], parser: PageParser) -> bytes:
    try:
        return file.read(READ_BYTES)
    except EOFError:
        raise parser.error("the compressed file is cut: it ends inside a stream") from None
    except (OSError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise parser.error(f"damaged compressed data ({error})") from None


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder: a dump is one file") from None
    suffix = path.suffix.removeprefix(".").lower()
    if suffix in _MAGIC and not head.startswith(_MAGIC[suffix]):
        raise InputError(f"{path}: begins with {head[:8]!r}: a .{suffix} file begins with {_MAGIC[suffix]!r}")
    for kind, magic in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if not head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise InputError(f"{path}: begins with {head[:8]!r}: a dump is XML, plain or as .bz2 or .gz")
    return "xml"


def _open(path: Path, kind: str) -> IO[bytes]:
    if kind == "bz2":
        return bz2.open(path, "rb")
    return gzip.open(path, "rb") if kind == "gz" else path.open("rb")  # type: ignore[return-value]


def _page(element: ElementTree.Element, parser: PageParser) -> tuple[Document, str]:
    """A <page> as a document, and the reason to drop it (empty: none)."""
    fields: dict[str, str] = {}
    redirect = False
    for child in element:
        name = _local(child.tag)
        if name == "revision":  # in a full history the last one wins
            fields.update((_local(part.tag), part.text or "") for part in child if _local(part.tag) in ("text", "model"))
        elif name == "redirect":
            redirect = True
        else:
            fields[name] = child.text or ""
    if not fields.get("id") or not fields.get("title"):
        raise parser.error(f"a <page> without {'<title>' if fields.get('id') else '<id>'}")
    text = fields.get("text", "")
    document = Document(
        id=f"{SOURCE}:{fields['id']}",
        source=SOURCE,
        text=text,
        title=fields["title"],
        url=_address(fields["title"]),
        licence=LICENCE,
    )
    if fields.get("ns", "0") != "0":
        return document, OTHER_NAMESPACE
    if redirect or _REDIRECT.match(text):
        return document, REDIRECT
    if fields.get("model", "wikitext") != "wikitext":
        return document, NOT_WIKITEXT
    return document, "" if text.strip() else NO_TEXT


def _address(title: str) -> str:
    escaped = _NOT_IN_ADDRESS.sub(lambda match: f"%{ord(match[0]):02X}", title)
    return f"https://zh.wikipedia.org/wiki/{escaped.replace(' ', '_')}"


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
