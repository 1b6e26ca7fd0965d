"""Laws of reading a dump: every form gives the same pages, nothing is lost silently, memory does not grow."""

import bz2
import gzip
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import zhwiki
from megadec.corpus.sources.bzip2 import block_starts
from megadec.corpus.sources.pieces import pieces, read_piece
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.zhwiki import read_zhwiki

HEAD = (
    '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="zh">\n'
    "  <siteinfo>\n    <sitename>样例</sitename>\n  </siteinfo>\n"
)
TAIL = "</mediawiki>\n"


def xml_page(number: int, text: str = "", *, ns: int = 0, extra: str = "", model: str = "wikitext") -> str:
    body = text or f"第{number}页的'''正文'''，&lt;ref&gt;注&lt;/ref&gt; 完。"
    return (
        f"  <page>\n    <title>第{number}页 &amp; 题</title>\n    <ns>{ns}</ns>\n    <id>{number}</id>\n    {extra}\n"
        f"    <revision>\n      <id>{number + 5000}</id>\n      <model>{model}</model>\n"
        f'      <text bytes="1" xml:space="preserve">{body}</text>\n    </revision>\n  </page>\n'
    )


PAGES = [xml_page(number) for number in range(1, 41)]


def multistream(path: Path) -> Path:
    """A dump of five pages a stream."""
    streams = [HEAD, *("".join(PAGES[start : start + 5]) for start in range(0, len(PAGES), 5)), TAIL]
    path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
    return path


def read(path: Path) -> tuple[list[Document], CorpusReport]:
    report = CorpusReport()
    return list(read_zhwiki(path, report, ReadOptions())), report


def read_in_pieces(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """What several workers do, in this process."""
    for piece in pieces(read_zhwiki, [path], options):
        yield from read_piece(piece, read_zhwiki, report, options)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zhwiki, "BZIP2_PIECE_BYTES", 1)
    monkeypatch.setattr(zhwiki, "XML_PIECE_BYTES", 1500)
    monkeypatch.setattr(zhwiki, "READ_BYTES", 100)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dump") / "dump.xml"
    path.write_text(HEAD + "".join(PAGES) + TAIL, encoding="utf-8")
    return path


def test_a_page_becomes_a_document_with_id_title_address_and_raw_wikitext(plain: Path) -> None:
    documents = read(plain)[0]
    assert documents[0] == Document(
        id="zhwiki:1",
        source="zhwiki",
        text="第1页的'''正文'''，<ref>注</ref> 完。",
        title="第1页 & 题",
        url="https://zh.wikipedia.org/wiki/第1页_%26_题",
        licence="CC-BY-SA-4.0",
    )
    assert len(documents) == 40


def blocks_of(path: Path, data: bytes, size: int) -> Path:
    """A file of many streams that cut pages."""
    path.write_bytes(b"".join(bz2.compress(data[start : start + size]) for start in range(0, len(data), size)))
    return path


def test_every_form_of_a_dump_gives_the_same_documents_whole_and_in_pieces(plain: Path, tmp_path: Path) -> None:
    expected = read(plain)[0]
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    (tmp_path / "a.xml.gz").write_bytes(gzip.compress(plain.read_bytes()))
    several = multistream(tmp_path / "a-multistream.xml.bz2")
    cut_pages = [blocks_of(tmp_path / f"{size}.xml.bz2", plain.read_bytes(), size) for size in (997, 1000, 77)]
    for path in (plain, tmp_path / "a.xml.bz2", tmp_path / "a.xml.gz", several, *cut_pages):
        assert read(path)[0] == expected
        assert list(read_in_pieces(path, CorpusReport(), ReadOptions())) == expected
    assert len(list(pieces(read_zhwiki, [several], ReadOptions()))) > 5


@pytest.mark.parametrize("size", [1, 7, 50, 333, 4096])
def test_pieces_of_any_size_give_each_page_once(plain: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zhwiki, "XML_PIECE_BYTES", 1 + 100 * size // 3)
    monkeypatch.setattr(zhwiki, "READ_BYTES", size)
    assert list(read_in_pieces(plain, CorpusReport(), ReadOptions())) == read(plain)[0]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (xml_page(1, ns=10), "other_namespace"),
        (xml_page(1, extra='<redirect title="x" />'), "redirect"),
        (xml_page(1, text="#REDIRECT [[x]]"), "redirect"),
        (xml_page(1, text="#重定向 [[x]]"), "redirect"),
        (xml_page(1, text="#重新導向 [[x]]"), "redirect"),
        (xml_page(1, text=" #WEITERLEITUNG: [[x]]"), "redirect"),
        (xml_page(1, model="javascript"), "not_wikitext"),
        (xml_page(1, text=" "), "no_text"),
    ],
)
def test_pages_that_are_no_articles_are_dropped_with_a_reason(tmp_path: Path, page: str, reason: str) -> None:
    path = tmp_path / "dump.xml"
    path.write_text(HEAD + page + PAGES[1] + TAIL, encoding="utf-8")
    documents, report = read(path)
    assert [document.id for document in documents] == ["zhwiki:2"]
    assert dict(report.dropped) == {reason: 1}


def read_until_error(path: Path, reader: Callable[..., Iterator[Document]] = read_zhwiki) -> tuple[list[str], str]:
    ids: list[str] = []
    with pytest.raises(InputError) as caught:
        ids.extend(document.id for document in reader(path, CorpusReport(), ReadOptions()))
    assert str(path) in str(caught.value)
    return ids, str(caught.value)


def test_a_cut_dump_is_an_error_that_names_the_last_whole_page(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(HEAD + "".join(PAGES[:3]) + PAGES[3][:80], encoding="utf-8")
    ids, message = read_until_error(path)
    assert len(ids) == 3
    assert "last whole page: zhwiki:3 第3页 & 题" in message


def zeros_in_the_third(data: bytes, starts: list[int]) -> bytes:
    return data[: starts[3] + 40] + bytes(20) + data[starts[3] + 60 :]


@pytest.mark.parametrize(
    ("damage", "pages", "found"),
    [
        (lambda data, starts: data[: starts[4] + 60], 15, "the compressed file is cut"),  # inside a stream
        (lambda data, starts: data[: starts[4]], 15, "the XML is cut"),  # between two
        (zeros_in_the_third, 10, "damaged compressed data"),
    ],
)
def test_a_damaged_multistream_gives_all_pages_before_the_damage_and_an_error(
    tmp_path: Path, damage: Callable[[bytes, list[int]], bytes], pages: int, found: str
) -> None:
    path = multistream(tmp_path / "a-multistream.xml.bz2")
    with path.open("rb") as file:
        starts = [bit // 8 - 4 for bit in block_starts(file)]
    path.write_bytes(damage(path.read_bytes(), starts))
    for reader in (read_zhwiki, read_in_pieces):
        ids, message = read_until_error(path, reader)
        assert ids == [f"zhwiki:{number}" for number in range(1, pages + 1)]
        assert found in message


@pytest.mark.parametrize(
    ("name", "data", "found"),
    [
        ("a.xml.bz2", b"<mediawiki></mediawiki>", "begins with"),
        ("a.xml", b"PK\x03\x04zip", "begins with"),
        ("a.xml", b"", "begins with"),
        ("a.xml", b"<html><body/></html>", "root element <html>"),
        ("a.txt.bz2", bz2.compress(b"0:1:x\n"), "a dump is XML"),
        ("a.xml", (HEAD + "<page><title>x</title></page>" + TAIL).encode(), "without <id>"),
    ],
)
def test_what_is_no_dump_is_an_input_error(tmp_path: Path, name: str, data: bytes, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert found in read_until_error(path)[1]


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path: Path) -> None:
    assert "no such file" in read_until_error(tmp_path / "none.xml")[1]
    assert "a folder" in read_until_error(tmp_path)[1]


def test_memory_does_not_grow_with_the_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    path = tmp_path / "large.xml"
    with path.open("w", encoding="utf-8") as file:
        file.write(HEAD)
        for number in range(800):
            file.write(xml_page(number + 1, text="字" * 3300))
        file.write(TAIL)
    tracemalloc.start()
    count = sum(1 for _ in read_zhwiki(path, CorpusReport(), ReadOptions()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 800  # 8 MB
    assert peak < 3_000_000
