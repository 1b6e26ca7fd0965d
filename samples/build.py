"""Page sources in, the sample wiki dumps out.

In: `samples/zhwiki/pages/*.wiki`, each a few `key: value` lines (title, ns, id, optional redirect), a blank line and
wikitext. Out: the three files that a Wikimedia mirror offers: one bz2 stream, several bz2 streams, and their index.
Everything is held in memory and written in one go, which suits a corpus of some hundred kilobytes and makes the bytes
depend on nothing but the sources.
"""

import argparse
import bz2
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from megadec.common.errors import InputError, run_main
from megadec.common.files import whole_file

DUMP_NAME = "sample-pages-articles.xml.bz2"
MULTISTREAM_NAME = "sample-pages-articles-multistream.xml.bz2"
INDEX_NAME = "sample-pages-articles-multistream-index.txt.bz2"
PAGES_PER_STREAM = 10
TIMESTAMP = "2024-01-01T00:00:00Z"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
NAMESPACES = {
    -2: "Media",
    -1: "Special",
    0: "",
    1: "Talk",
    2: "User",
    3: "User talk",
    4: "Wikipedia",
    5: "Wikipedia talk",
    6: "File",
    7: "File talk",
    8: "MediaWiki",
    9: "MediaWiki talk",
    10: "Template",
    11: "Template talk",
    12: "Help",
    13: "Help talk",
    14: "Category",
    15: "Category talk",
    100: "Portal",
    101: "Portal talk",
    828: "模块",
    829: "模块讨论",
}
FOOTER = b"</mediawiki>\n"


@dataclass(frozen=True, slots=True)
class Page:
    """One wiki page as its source file gives it; `redirect` is the title it points at, empty for other pages."""

    id: int
    namespace: int
    title: str
    redirect: str
    text: str


def read_page(path: Path) -> Page:
    """Read one `.wiki` source; InputError when a key is missing, unknown or not a number where it must be one."""
    head, blank, text = path.read_text(encoding="utf-8").partition("\n\n")
    if not blank:
        raise InputError(f"{path}: no blank line found; the metadata lines end with one")
    fields = dict(line.split(": ", 1) for line in head.splitlines() if ": " in line)
    if not {"title", "ns", "id"} <= fields.keys() <= {"title", "ns", "id", "redirect"}:
        raise InputError(f"{path}: metadata has {sorted(fields)}; title, ns and id are needed, redirect is allowed")
    if not fields["id"].isdecimal() or fields["ns"] not in map(str, NAMESPACES):
        raise InputError(f"{path}: id={fields['id']} ns={fields['ns']}; id is a number, ns one of {list(NAMESPACES)}")
    redirect = fields.get("redirect", "")
    return Page(int(fields["id"]), int(fields["ns"]), fields["title"], redirect, text.rstrip("\n"))


def read_pages(folder: Path) -> list[Page]:
    """All pages of a folder in the order of their ids, as in a real dump; InputError for none or for a repeated id."""
    pages = sorted((read_page(path) for path in folder.glob("*.wiki")), key=lambda page: page.id)
    if not pages:
        raise InputError(f"{folder}: no .wiki file found; the dump is built from them")
    for before, after in pairwise(pages):
        if before.id == after.id:
            raise InputError(f"{folder}: id {after.id} belongs to {before.title} and {after.title}; ids are unique")
    return pages


def sha1_base36(data: bytes) -> str:
    """SHA-1 in base 36 with 31 digits, the form that MediaWiki writes."""
    number = int.from_bytes(hashlib.sha1(data, usedforsecurity=False).digest())
    digits = ""
    while number:
        number, remainder = divmod(number, 36)
        digits = DIGITS[remainder] + digits
    return digits.rjust(31, "0")


def header_xml() -> bytes:
    """Opening element and siteinfo of https://www.mediawiki.org/xml/export-0.11.xsd."""
    schema = "http://www.mediawiki.org/xml/export-0.11"
    rows = [
        f'<mediawiki xmlns="{schema}/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{schema}/ {schema}.xsd" version="0.11" xml:lang="zh">',
        "  <siteinfo>",
        "    <sitename>Megadec sample wiki</sitename>",
        "    <dbname>samplewiki</dbname>",
        "    <base>https://zh.wiki.example.org/wiki/Main_Page</base>",
        "    <generator>MediaWiki 1.43.0</generator>",
        "    <case>first-letter</case>",
        "    <namespaces>",
    ]
    for key, name in NAMESPACES.items():
        tail = f">{name}</namespace>" if name else " />"
        rows.append(f'      <namespace key="{key}" case="first-letter"{tail}')
    return "\n".join([*rows, "    </namespaces>", "  </siteinfo>", ""]).encode()


def page_xml(page: Page) -> bytes:
    """One <page> element, with the elements and the order that real dumps have."""
    data = page.text.encode()
    text = escape(page.text, {'"': "&quot;"})
    sha1 = sha1_base36(data)
    rows = ["  <page>", f"    <title>{escape(page.title)}</title>", f"    <ns>{page.namespace}</ns>"]
    rows.append(f"    <id>{page.id}</id>")
    if page.redirect:
        rows.append(f"    <redirect title={quoteattr(page.redirect)} />")
    rows += [
        "    <revision>",
        f"      <id>{page.id + 100_000}</id>",
        f"      <timestamp>{TIMESTAMP}</timestamp>",
        "      <contributor>",
        "        <username>Sample</username>",
        "        <id>1</id>",
        "      </contributor>",
        f"      <origin>{page.id + 100_000}</origin>",
        "      <model>wikitext</model>",
        "      <format>text/x-wiki</format>",
        f'      <text bytes="{len(data)}" sha1="{sha1}" xml:space="preserve">{text}</text>',
        f"      <sha1>{sha1}</sha1>",
        "    </revision>",
        "  </page>",
        "",
    ]
    return "\n".join(rows).encode()


def build_dump(pages: Sequence[Page]) -> bytes:
    """The whole dump as one bz2 stream."""
    return bz2.compress(header_xml() + b"".join(page_xml(page) for page in pages) + FOOTER)


def build_multistream(pages: Sequence[Page]) -> tuple[bytes, bytes]:
    """The dump as bz2 streams (header, groups of PAGES_PER_STREAM pages, footer) and its index `offset:page id:title`.

    The offset is the byte at which the stream that holds the page starts.
    """
    dump = bytearray(bz2.compress(header_xml()))
    index: list[str] = []
    for first in range(0, len(pages), PAGES_PER_STREAM):
        group = pages[first : first + PAGES_PER_STREAM]
        index += [f"{len(dump)}:{page.id}:{page.title}\n" for page in group]
        dump += bz2.compress(b"".join(page_xml(page) for page in group))
    dump += bz2.compress(FOOTER)
    return bytes(dump), bz2.compress("".join(index).encode())


def build(folder: Path, output: Path) -> list[Path]:
    """Build the three files under `output` from the pages in `folder`; the same sources give the same bytes."""
    pages = read_pages(folder)
    multistream, index = build_multistream(pages)
    contents = {DUMP_NAME: build_dump(pages), MULTISTREAM_NAME: multistream, INDEX_NAME: index}
    output.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        with whole_file(output / name) as file:
            file.write(data)
    return [output / name for name in contents]


def main(argv: Sequence[str] | None = None) -> None:
    """`python samples/build.py`: rebuild the dumps of the sample corpus."""
    wiki = Path(__file__).resolve().parent / "zhwiki"
    parser = argparse.ArgumentParser(description="Build the sample wiki dumps from samples/zhwiki/pages.")
    parser.add_argument("--input", type=Path, default=wiki / "pages", help="folder of .wiki sources")
    parser.add_argument("--output", type=Path, default=wiki, help="folder for the three built files")
    arguments = parser.parse_args(argv)
    for path in build(arguments.input, arguments.output):
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    run_main(main)
