"""MediaWiki's export XML -> pages, from chunks of bytes, in constant memory.

A pull parser is fed by hand, so that an error can name the last whole page and how far it came.

Format: https://www.mediawiki.org/wiki/Help:Export and the schema export-0.11.xsd.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from typing import Any, cast

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport

SOURCE, LICENCE = "zhwiki", "CC-BY-SA-4.0"
READ_BYTES = 1 << 18
ROOT_END = b"</mediawiki>"

# An export marks redirects; texts from elsewhere say it in a language's own word.
_REDIRECT = re.compile(
    r"\s*[#＃]\s*(?:redirect(?:ion)?|重定向|重新[导導]向|重[导導]向|[转轉]址|転送|リダイレクト|넘겨주기|weiterleitung|redirección|rinvia|"
    r"redirecionamento|doorverwijzing|перенаправление|перенапр|patrz|przekieruj|omdirigering|đổi|تحويل|הפניה|yönlendirme?)"
    r"\s*[:：]?\s*\[\[",
    re.IGNORECASE,
)
_NOT_IN_ADDRESS = re.compile(r'[%?#"&+\\^`{|}<>]')


PAGE = b"<page>"


def page_range(contents: Iterator[tuple[int, bytes]], start: int, end: int | None) -> Iterator[bytes]:
    """The bytes of the pages that begin in a part of an export: up to the next page, or to the export's end.

    contents: (place, data) from the part's `start` on and beyond its `end` (None: it has none); places are numbers that
    grow. A part that begins at 0 has the export's header too.
    """
    begun = start == 0
    kept, own = b"", 0  # the end of what came so far may hold the begin of a tag; how much of it is the part's own
    for place, data in contents:
        beyond = end is not None and place >= end
        kept += data
        own = own if beyond else len(kept)
        if not begun and (first := kept.find(PAGE)) >= 0 and first < own:
            begun, kept, own = True, kept[first:], own - first
        following = kept.find(PAGE, own) if begun and beyond else -1
        if following >= 0:
            yield kept[:following] + ROOT_END
            return
        done = len(kept) - next(length for length in range(len(PAGE) - 1, -1, -1) if kept.endswith(PAGE[:length]))
        if begun:
            yield kept[:done]
        kept = kept[done:]
        own = max(0, own - done)
        if beyond and not begun and not own:
            break
    yield kept if begun else ROOT_END


class PageParser:
    """An export as chunks of bytes -> its articles; keeps what an error message needs to name.

    All pages are counted as read in `report`, those that are no articles as dropped with their reason.
    """

    def __init__(self, name: str, report: CorpusReport, *, opened: bool = False) -> None:
        """`opened`: the bytes begin between two pages, as in the streams of a multistream dump."""
        self.name = name
        self._report = report
        self.bytes_read = 0
        self.last_page = "none"
        self._parser: Any = ElementTree.XMLPullParser(("start", "end"))
        self._root: ElementTree.Element | None = None
        if opened:
            self._parser.feed(b"<mediawiki>")

    def feed(self, data: bytes) -> Iterator[Document]:
        """The articles that end in this chunk."""
        try:
            for start in range(0, len(data), READ_BYTES):  # its tree holds all pages that it was fed
                self._parser.feed(data[start : start + READ_BYTES])
                yield from self._pages()
        except ElementTree.ParseError as error:
            if self._root is None:
                found = f"holds {data[:16]!r}..."
                raise InputError(f"{self.name}: {found}: a dump is XML with <mediawiki> at its root") from None
            raise self.error(f"damaged XML ({error})") from None
        self.bytes_read += len(data)

    def close(self) -> Iterator[Document]:
        """The articles that the parser still held back. Raises InputError when the XML does not end here."""
        cut: ElementTree.ParseError | None = None
        try:
            self._parser.close()
        except ElementTree.ParseError as error:
            cut = error
        yield from self._pages()
        if self._root is None:
            raise self.error("no XML in it")
        if cut is not None:
            raise self.error(f"the XML is cut ({cut})")

    def error(self, found: str) -> InputError:
        """An InputError that tells how far the dump could be read."""
        return InputError(
            f"{self.name}: {found} after {self.bytes_read:,} bytes of XML, last whole page: {self.last_page}; "
            "a dump must be whole: fetch it again and compare its checksum"
        )

    def _pages(self) -> Iterator[Document]:
        for event, element in cast(Iterator[tuple[str, ElementTree.Element]], self._parser.read_events()):
            if self._root is None:
                self._root = element
                if _local(element.tag) != "mediawiki":
                    raise InputError(f"{self.name}: root element <{_local(element.tag)}>: a dump's is <mediawiki>")
            elif event == "end" and element.tag.endswith("page") and _local(element.tag) == "page":
                document, reason = _page(element, self)
                self.last_page = f"{document.id} {document.title}"
                if reason:
                    self._report.drop(document, reason)
                else:
                    yield document
                # The root keeps every child it has seen: without this a dump would grow in memory.
                self._root.clear()


def _page(element: ElementTree.Element, parser: PageParser) -> tuple[Document, str]:
    """A <page> as a document, and the reason to drop it (empty: none)."""
    parts = _parts(element)
    number, title = _text(parts, "id"), _text(parts, "title")
    if not number or not title:
        raise parser.error(f"a <page> without {'<title>' if number else '<id>'}")
    revision = _parts(parts["revision"]) if "revision" in parts else {}
    text = _text(revision, "text")
    document = Document(f"{SOURCE}:{number}", SOURCE, text, title, url=_address(title), licence=LICENCE)
    if _text(parts, "ns") not in ("", "0"):
        return document, "other_namespace"
    if "redirect" in parts or _REDIRECT.match(text):
        return document, "redirect"
    if _text(revision, "model") not in ("", "wikitext"):
        return document, "not_wikitext"
    return document, "" if text.strip() else "no_text"


def _parts(element: ElementTree.Element) -> dict[str, ElementTree.Element]:
    """The children by name; of a name that stands twice (revisions in a full history) the last."""
    return {_local(child.tag): child for child in element}


def _text(parts: dict[str, ElementTree.Element], name: str) -> str:
    return (parts[name].text or "") if name in parts else ""


def _address(title: str) -> str:
    escaped = _NOT_IN_ADDRESS.sub(lambda match: f"%{ord(match[0]):02X}", title)
    return f"https://zh.wikipedia.org/wiki/{escaped.replace(' ', '_')}"


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
