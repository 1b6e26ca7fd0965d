"""Laws of the sample wiki: the committed dumps are what the sources give, and the sources hold every kind of markup."""

import bz2
import re
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import pytest

from megadec.common.errors import InputError
from samples.build import build, main
from tests.support import PROJECT

WIKI = PROJECT / "samples" / "zhwiki"
DUMP = WIKI / "sample-pages-articles.xml.bz2"
MULTISTREAM = WIKI / "sample-pages-articles-multistream.xml.bz2"
INDEX = WIKI / "sample-pages-articles-multistream-index.txt.bz2"
SCHEMA = "{http://www.mediawiki.org/xml/export-0.11/}"

TAGS = ["chem", "source", "syntaxhighlight", "pre", "code", "gallery", "nowiki", "br", "poem", "blockquote", "sup"]
# Kind of markup -> a pattern that only it matches; each must occur in some article.
MARKUP = {
    **{f"tag {tag}": rf"<{tag}\b" for tag in TAGS},
    **{f"conversion flag {flag}": rf"-\{{{flag}\|" for flag in "RAHT"},
    **{f"entity {name}": f"&{name};" for name in ("nbsp", "amp", "lt", "#x20BB7")},
    "NoteTA on one line": r"\{\{[Nn]oteTA\|.*\}\}\n",
    "NoteTA on several lines": r"\{\{[Nn]oteTA\n\|",
    "NoteTA group": r"\{\{[Nn]oteTA\s*\|G1=",
    "conversion by script": r"-\{zh-hans:[^{}]+;zh-hant:",
    "conversion by region": r"-\{zh-cn:[^{}]+;zh-tw:[^{}]+;zh-hk:",
    "conversion without a rule": r"-\{[^{}:;|]+\}-",
    "empty conversion": r"-\{\}-",
    "one-way rule in NoteTA": r"\|\d=[^|\n]+=>zh-",
    "one-way rule in the text": r"-\{[^{}]+=>[^{}]+\}-",
    "nested conversion": r"-\{[^{}]*-\{[^{}]*\}-[^{}]*;",
    "conversion in a link": r"\[\[[^\]\n]*-\{[^\]\n]*\}-\]\]",
    "infobox": r"\{\{Infobox",
    "nested templates": r"\{\{[^{}]*\{\{[^{}]*\}\}",
    "wikitable": r'\{\| class="wikitable',
    "nested table": r"\{\|(?:(?!\n\|\})[\s\S])*\n\{\|",
    "rowspan": r"rowspan",
    "colspan": r"colspan",
    "table caption": r"\n\|\+",
    "named ref": r'<ref name="\w+">',
    "repeated ref": r'<ref name="\w+" ?/>',
    "ref on several lines": r"<ref>[^<]*\n[^<]*</ref>",
    "list of refs": r"\{\{[Rr]eflist",
    "math": r"<math>",
    "display math": r'<math display="block">',
    "chem template": r"\{\{chem\|",
    "File link with a link in its caption": r"\[\[File:[^\]\n]*\[\[",
    "Image link": r"\[\[Image:",
    "file link in Chinese": r"\[\[檔案:",
    "category": r"\[\[Category:",
    "link to a category": r"\[\[:Category:",
    "interlanguage link": r"\n\[\[en:",
    "named external link": r"\[https?://\S+ [^\]]+\]",
    "bare external link": r"\[https?://[^\s\]]+\]",
    "bold": r"'''\w",
    "italics": r"(?<!')''(?!')\w",
    "bullets": r"\n\* ?\w",
    "numbers": r"\n# ?\w",
    "definition": r"\n; ?\w",
    "indent": r"\n:+ ?\w",
    "mixed list": r"\n#\*",
    "heading": r"\n== .+ ==\n",
    "third-level heading": r"\n=== .+ ===\n",
    "comment on several lines": r"<!--[^>]*\n",
    "brackets around a template alone": r"（\{\{[^{}]+\}\}）",
    "unbalanced link": r"\[\[[^\[\]\n]+\](?!\])",
    "magic word": r"__NOTOC__",
    "parser function": r"\{\{#if:",
    "lang template": r"\{\{lang\|",
    "full-width digits": r"[０-９]{2}",
    "emoji": r"[\U0001F300-\U0001FAFF]",
    "joined emoji": r"\u200d",
    "character beyond the BMP": r"𠮷",
}


@cache
def sources() -> dict[str, tuple[dict[str, str], str]]:
    found = {}
    for path in WIKI.glob("pages/*.wiki"):
        head, _, text = path.read_text(encoding="utf-8").partition("\n\n")
        found[path.stem] = (dict(line.split(": ", 1) for line in head.splitlines()), text.rstrip("\n"))
    return found


@cache
def articles() -> dict[str, str]:
    """The wikitext of every page that is an article: main namespace, no redirect, no disambiguation."""
    return {
        name: text
        for name, (fields, text) in sources().items()
        if fields["ns"] == "0" and "redirect" not in fields and not re.search(r"\{\{(disambig|消歧义|消歧義)", text)
    }


def test_committed_dumps_are_the_bytes_that_the_sources_give(tmp_path: Path) -> None:
    main(["--output", str(tmp_path)])
    for path in (DUMP, MULTISTREAM, INDEX):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_dump_holds_every_source_unchanged_in_order_of_ids() -> None:
    root = ElementTree.fromstring(bz2.decompress(DUMP.read_bytes()))
    pages = [
        {
            "title": page.findtext(f"{SCHEMA}title"),
            "ns": page.findtext(f"{SCHEMA}ns"),
            "id": page.findtext(f"{SCHEMA}id"),
            "text": page.findtext(f"{SCHEMA}revision/{SCHEMA}text"),
        }
        | ({"redirect": target.get("title")} if (target := page.find(f"{SCHEMA}redirect")) is not None else {})
        for page in root.findall(f"{SCHEMA}page")
    ]
    wanted = [fields | {"text": text} for fields, text in sources().values()]
    assert pages == sorted(wanted, key=lambda page: int(page["id"]))


def test_multistream_dump_is_the_same_xml_as_the_plain_one() -> None:
    assert bz2.decompress(MULTISTREAM.read_bytes()) == bz2.decompress(DUMP.read_bytes())


def test_index_offset_is_where_the_stream_with_that_page_starts() -> None:
    dump = MULTISTREAM.read_bytes()
    rows = [line.split(":", 2) for line in bz2.decompress(INDEX.read_bytes()).decode().splitlines()]
    streams = {int(offset): bz2.BZ2Decompressor().decompress(dump[int(offset) :]).decode() for offset, _, _ in rows}
    listed = {offset: [] for offset in streams}
    for offset, number, title in rows:
        listed[int(offset)].append((title, number))
    for offset, xml in streams.items():
        held = re.findall(r"<page>\n    <title>(.*?)</title>\n.*\n    <id>(\d+)</id>", xml)
        assert held == listed[offset]
        assert len(held) <= 10
    assert len(rows) == len(sources())


def test_there_are_enough_articles_and_the_pages_that_a_reader_must_drop() -> None:
    fields = [fields for fields, _ in sources().values()]
    assert len(articles()) >= 44
    assert sum("redirect" in page for page in fields) == 3
    assert {"3", "4", "10", "14"} <= {page["ns"] for page in fields}


def test_each_article_is_prose_of_its_own() -> None:
    seen: dict[str, str] = {}
    for name, text in articles().items():
        assert 350 <= len(re.findall(r"[\u3400-\u9fff]", text)) <= 900, name
        for sentence in re.findall(r"[\u4e00-\u9fff，、]{16,}。", text):
            assert seen.setdefault(sentence, name) == name, f"{sentence} in {name} and {seen[sentence]}"


def test_a_third_of_the_articles_is_traditional() -> None:
    traditional = [name for name, text in articles().items() if len(re.findall(r"[這個來說時會為們]", text)) >= 12]
    assert len(articles()) / 4 <= len(traditional) <= len(articles()) / 2


def test_every_kind_of_markup_occurs_in_an_article() -> None:
    texts = articles().values()
    assert [kind for kind, mark in MARKUP.items() if not any(re.search(mark, text) for text in texts)] == []


def test_one_template_is_never_closed() -> None:
    assert [name for name, text in articles().items() if text.count("{{") > text.count("}}")] == ["honey-bee"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("title: 甲\nns: 0\nid: 7\n文字。", r"page\.wiki: no blank line"),
        ("title: 甲\nns: 0\n\n文字。", r"page\.wiki: .*title, ns and id are needed"),
        ("title: 甲\nns: 99\nid: 7\n\n文字。", r"page\.wiki: .*ns=99"),
        ("title: 甲\nns: 0\nid: 七\n\n文字。", r"page\.wiki: .*id=七"),
        ("title: 甲\nns: 0\nid: 8\n\n文字。", "id 8 belongs to"),
    ],
)
def test_a_source_with_wrong_metadata_or_the_id_of_another_is_named_and_no_dump_written(
    tmp_path: Path, source: str, message: str
) -> None:
    (tmp_path / "page.wiki").write_text(source, encoding="utf-8")
    (tmp_path / "other.wiki").write_text("title: 乙\nns: 0\nid: 8\n\n文字。\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        build(tmp_path, tmp_path / "built")
    assert not (tmp_path / "built").exists()
