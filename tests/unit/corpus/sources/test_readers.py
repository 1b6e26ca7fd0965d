"""Each reader on small files with the quirks of the real ones."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import files
from megadec.corpus.sources.comments import read_comments
from megadec.corpus.sources.html import read_html
from megadec.corpus.sources.jsonl import read_jsonl
from megadec.corpus.sources.parquet import is_prepared, read_parquet, read_prepared
from megadec.corpus.sources.pieces import Reader
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.sgml import read_sgml
from megadec.corpus.sources.text import read_markdown, read_text, sections
from megadec.corpus.sources.thucnews import read_thucnews
from megadec.corpus.sources.wikiextractor import read_wikiextractor
from tests.support.documents import write_documents
from tests.support.readers import read, write

PLAIN = ReadOptions()


# --- WikiExtractor


def test_what_wikiextractor_writes_is_read_in_both_forms(tmp_path: Path) -> None:
    write(tmp_path / "AA" / "wiki_00", '{"id": "1", "url": "u", "title": "甲", "text": "正文"}\n')
    doc = '<doc id="2" url="u?curid=2" title="“乙”"之二">\n乙\n\n正文二\n</doc>\n'
    write(tmp_path / "AB" / "wiki_00", doc * 2)
    one, two, _ = read(read_wikiextractor, tmp_path)
    assert (one.title, one.text) == ("甲", "正文")
    assert (two.id, two.title, two.text, two.url) == ("2", '“乙”"之二', "乙\n\n正文二", "u?curid=2")
    write(tmp_path / "AB" / "wiki_00", '<doc id="3" title="丙" url="v">\n正文三\n</doc>\n')
    three = read(read_wikiextractor, tmp_path)[-1]
    assert (three.id, three.title, three.url) == ("3", "丙", "v")
    write(tmp_path / "AB" / "wiki_00", doc + doc[:-8])
    with pytest.raises(InputError, match=r"wiki_00: the <doc> of .* has no end"):
        read(read_wikiextractor, tmp_path)


# --- comments


def test_rows_may_hold_newlines_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufefflabel,review\r\n1,"很好，\n""真的"""\r\n0,\ufeff差\r\n')
    documents = read(read_comments, path)
    assert [(document.text, document.label) for document in documents] == [('很好，\n"真的"', "1"), ("\ufeff差", "0")]
    assert len({document.id for document in documents}) == 2


def test_columns_are_named_by_options_and_a_wrong_name_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "cat,stars,words,more\n书,5,好,续\n")
    (document,) = read(read_comments, path, text_field="words,more", label_field="cat")
    assert (document.text, document.label) == ("好\n续", "书")
    with pytest.raises(InputError, match=r"no column 'word' .did you mean 'words'.*it has cat, stars"):
        read(read_comments, path, text_field="word")


def test_a_row_of_another_length_is_dropped_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "label,review\n1,好\n1,很,好\n0,差\n")
    report = CorpusReport()
    assert [document.text for document in read_comments(path, report, PLAIN)] == ["好", "差"]
    assert "a.csv:3: 1,很,好" in report.samples["malformed_line"][0]


@pytest.mark.parametrize(("delimiter", "codec"), [(";", "utf-8"), ("\t", "utf-16"), (",", "utf-32")])
def test_a_csv_file_has_the_delimiter_of_its_header_line(tmp_path: Path, delimiter: str, codec: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(f"label{delimiter}review\n1{delimiter}好，很好\n".encode(codec))
    (document,) = read(read_comments, path, encoding="auto")
    assert (document.text, document.label) == ("好，很好", "1")


def test_quotes_are_characters_in_tsv_and_by_option(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'label\treview\n1\t"很好\n0\t差"\n')
    assert [document.text for document in read(read_comments, path)] == ['"很好', '差"']
    path = write(tmp_path / "a.csv", 'label,review\n1,"很好\n0,差\n')
    assert [document.text for document in read(read_comments, path, csv_quotes="no")] == ['"很好', "差"]
    with pytest.raises(InputError, match=r"a\.csv: line 2: a quote that opens there never closes; --csv_quotes no"):
        read(read_comments, path)


def test_rows_that_stray_quotes_hold_together_are_rows(tmp_path: Path) -> None:
    rows = ['1,"好一', *(f"0,差{number}" for number in range(5)), '1,"好二', "0,完"]
    path = write(tmp_path / "a.csv", "label,review\n" + "\n".join(rows) + "\n")
    report = CorpusReport()
    texts = [document.text.lstrip('"') for document in read_comments(path, report, PLAIN)]
    assert texts == [row[2:].lstrip('"') for row in rows]
    assert report.notes["quotes across rows read as characters"] == 1


# --- JSON


@pytest.mark.parametrize(
    ("row", "text", "title"),
    [
        (
            {"文件名": "a.txt", "段落数": 2, "段落": [{"行号": 1, "内容": "甲"}, {"行号": 2, "内容": "乙"}]},
            "甲\n乙",
            "",
        ),  # MNBVC
        ({"id": 1, "问": "为何", "答": "因为", "元数据": {}}, "因为", "为何"),
        ({"id": 1, "uniqueKey": "k", "dataType": "百科", "title": "甲", "content": "乙"}, "乙", "甲"),  # WuDao
        ({"text": "甲", "score": 0.9, "source_type": "web", "title": float("nan")}, "甲", ""),  # ChineseWebText
        ({"text": [["甲", "乙"], [None, "丙"]]}, "甲\n乙\n丙", ""),
        ({"qid": "q", "category": "体育", "title": "甲", "desc": "", "answer": "乙"}, "乙", "甲"),  # baike2018qa
    ],
)
def test_the_forms_of_known_corpora_are_read_without_options(
    tmp_path: Path, row: dict[str, Any], text: str, title: str
) -> None:
    for name, dumped in (("a.jsonl", json.dumps(row)), ("a.json", json.dumps([row] * 1, indent=1))):
        (document,) = read(read_jsonl, write(tmp_path / name, dumped))
        assert (document.text, document.title) == (text, title)


def test_keys_that_the_first_object_lacks_are_read_and_a_row_without_a_text_is_malformed(tmp_path: Path) -> None:
    rows = [{"text": "甲"}, {"label": "体育", "title": "题", "text": "乙"}, {"other": 1}, {"text": {"a": 1}}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    report = CorpusReport()
    found = list(read_jsonl(path, report, PLAIN))
    assert [(document.text, document.label) for document in found] == [("甲", ""), ("乙", "体育")]
    assert report.dropped == {"malformed_line": 2}
    with pytest.raises(InputError, match=r"no column 'txt' .did you mean 'text'"):
        read(read_jsonl, path, text_field="txt")
    with pytest.raises(InputError, match="no column of text among other"):
        read(read_jsonl, write(tmp_path / "a.jsonl", '{"other": 1}'))


@pytest.mark.parametrize(
    "content",
    [
        '["甲", "乙"]',
        '"甲"\n"乙"\n',
        '{"data": [{"text": "甲"}, {"text": "乙"}]}',
        '{"1": {"text": "甲"}, "2": {"text": "乙"}}',
        '{"version": 1, "rows":\n[{"text": "甲"}, {"text": "乙"}]}',
    ],
)
def test_texts_and_objects_inside_of_other_json_are_documents(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.json", content)
    assert [document.text for document in read(read_jsonl, path)] == ["甲", "乙"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"conversations": [{"from": "human", "value": "问"}, {"from": "gpt", "value": "答"}]}, "问\n答"),
        ({"messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]}, "问\n答"),
        ({"instruction": "问", "input": "", "output": "答"}, "问\n答"),
        ({"sentence1": "问", "sentence2": "答", "label": "1"}, "问\n答"),
        ({"text_a": "问", "label": 1}, "问"),
    ],
)
def test_dialogues_and_pairs_are_read_whole(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False))
    assert [document.text for document in read(read_jsonl, path)] == [text]


def test_a_list_of_json_is_read_an_object_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 7)
    rows = [{"text": "甲" * number, "more": {"a": [1, {"b": "]"}]}} for number in range(30)]
    path = write(tmp_path / "a.json", json.dumps(rows, ensure_ascii=False))
    assert [len(document.text) for document in read(read_jsonl, path)] == list(range(30))
    write(path, json.dumps(rows)[:-1])
    with pytest.raises(InputError, match="the list has no end"):
        read(read_jsonl, path)


def test_json_lines_become_documents_and_a_broken_line_is_dropped(tmp_path: Path) -> None:
    rows = ['{"id": 7, "title": "甲", "text": "正文", "url": "u"}', "{broken", "", '["no object"]', '{"text": null}']
    report = CorpusReport()
    one, two = read_jsonl(write(tmp_path / "a.jsonl", "\n".join(rows)), report, PLAIN)
    assert one == Document("7", "jsonl", "正文", title="甲", url="u")
    assert (two.text, two.id) == ("", "a:5")
    assert report.dropped["malformed_line"] == 2


def test_squad_form_gives_a_document_a_paragraph(tmp_path: Path) -> None:
    paragraphs = [{"context": "第一段", "qas": []}, {"context": "第二段"}]
    value = {"version": "1", "data": [{"title": "梵文", "paragraphs": paragraphs}]}
    for indent in (None, 2):
        path = write(tmp_path / "a.json", json.dumps(value, ensure_ascii=False, indent=indent))
        found = [(document.title, document.text) for document in read(read_jsonl, path)]
        assert found == [("梵文", "第一段"), ("梵文", "第二段")]


def test_a_list_of_objects_is_read(tmp_path: Path) -> None:
    (document,) = read(read_jsonl, write(tmp_path / "a.json", '[\n{"content": "正文"}\n]'))
    assert document.text == "正文"


# --- Parquet


def test_any_table_with_text_is_read_and_our_own_is_known(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["甲", None], "label": [1, 2]}), tmp_path / "t.parquet")
    found = read(read_parquet, tmp_path / "t.parquet")
    parts = [(document.text, document.label, document.id) for document in found]
    assert parts == [("甲", "1", "t:1"), ("", "2", "t:2")]
    assert not is_prepared(tmp_path / "t.parquet", PLAIN)
    (tmp_path / "ours").mkdir()
    write_documents(tmp_path / "ours" / "d.parquet", [Document("1", "wiki", "甲")])
    assert is_prepared(tmp_path / "ours", PLAIN)
    assert read(read_prepared, tmp_path / "ours") == [Document("1", "wiki", "甲")]
    with pytest.raises(InputError, match="holds both"):
        is_prepared(tmp_path, PLAIN)


def test_lists_and_missing_values_of_a_table_are_text_and_nothing(tmp_path: Path) -> None:
    table = pa.table({"text": [["甲", "乙"], ["丙"]], "title": [float("nan"), 1.0], "label": [True, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    found = read(read_parquet, tmp_path / "t.parquet")
    assert [(document.text, document.title, document.label) for document in found] == [
        ("甲\n乙", "", "True"),
        ("丙", "1.0", ""),
    ]


# --- web pages


@pytest.mark.parametrize(
    ("declared", "codec"), [("gb2312", "gb18030"), ("utf-8", "utf-8"), ("big5", "big5hkscs"), ("", "gb18030")]
)
def test_a_page_is_read_in_the_encoding_that_it_declares(tmp_path: Path, declared: str, codec: str) -> None:
    page = f'<html><meta charset="{declared}"><p>新聞說，公園在春天開放了</p></html>'
    path = write(tmp_path / "新闻" / "a.htm", page, codec)
    (document,) = read(read_html, tmp_path)
    assert document == Document("新闻/a", "html", page, label="新闻")
    assert path.exists()


# --- plain text


def test_a_text_file_is_a_document_or_so_many_lines_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "一\n\n二\n三\n四\n")
    (whole,) = read(read_text, path)
    assert whole == Document("a", "text", "一\n\n二\n三\n四\n")
    grouped = read(read_text, path, lines_per_document=3)
    assert [(document.id, document.text) for document in grouped] == [("a:1", "一\n二\n三"), ("a:5", "四")]


# --- Markdown


def test_a_markdown_file_is_a_document_with_its_first_heading(tmp_path: Path) -> None:
    write(tmp_path / "刑法" / "a.md", "前言\n# 某法\n正文\n## 第一章\n")
    (document,) = read(read_markdown, tmp_path)
    assert (document.id, document.title, document.label) == ("刑法/a", "某法", "刑法")
    assert document.text.startswith("前言\n# 某法")


def test_sections_begin_at_headings_down_to_a_level_and_not_in_code() -> None:
    text = "前言\n# 一\n甲\n```\n# 注释\n```\n### 三\n乙\n"
    assert list(sections(text, 1)) == [(0, "", "前言\n"), (1, "一", "甲\n```\n# 注释\n```\n### 三\n乙\n")]
    assert [title for _, title, _ in sections(text, 3)] == ["", "一", "三"]


def test_split_level_makes_a_document_of_each_section(tmp_path: Path) -> None:
    path = write(tmp_path / "a.md", "# 日报\n\n## 甲\n新闻一\n## 乙\n新闻二\n")
    found = read(read_markdown, path, split_level=2)
    parts = [(document.id, document.title, document.text.strip()) for document in found]
    assert parts == [("a#0", "日报", ""), ("a#1", "甲", "新闻一"), ("a#2", "乙", "新闻二")]


# --- Sogou Lab SGML

DOC = """<doc>
<url>http://e.org/?a=1&b=2</url>
<docno>x-1</docno>
<contenttitle>题　目</contenttitle>
<content>第一段。\ue40c第二段</content>
</doc>
"""


def test_sgml_without_a_root_and_with_bare_ampersands_is_read(tmp_path: Path) -> None:
    (document,) = read(read_sgml, write(tmp_path / "a.dat", DOC))
    assert document == Document("x-1", "sgml", "第一段。\n第二段", title="题　目", url="http://e.org/?a=1&b=2")


def test_an_sgml_element_that_begins_inside_of_one_without_an_end_replaces_it(tmp_path: Path) -> None:
    begun_twice = "<doc>\n<content>没有结尾\n <doc> \n" + DOC.removeprefix("<doc>\n")
    report = CorpusReport()
    found = list(read_sgml(write(tmp_path / "a.dat", begun_twice + "散文\n"), report, PLAIN))
    assert found == read(read_sgml, write(tmp_path / "b.dat", DOC))
    assert report.dropped == {"malformed_line": 2}


# --- what is refused


@pytest.mark.parametrize(
    ("reader", "name", "text", "message"),
    [
        (read_thucnews, "train.txt", "甲\t0\n乙\t7\n", r"line 2: label 7, but class\.txt has 1"),
        (read_comments, "a.csv", "cat,stars\n书,5\n", "no column of text among cat, stars; name it with --text_field"),
        (read_jsonl, "a.json", "[1,\n2]", "neither objects nor paragraphs"),
        (read_jsonl, "a.json", "{\n", "neither a JSON object a line nor one JSON value"),
        (read_parquet, "a.parquet", "no", r"a\.parquet: cannot be read"),
        (read_parquet, "folder/a.txt", "no", r"\.parquet are looked for, found were 1 \.txt"),
        (read_sgml, "a.dat", DOC + DOC[:80], "the last <doc> has no end"),
        (read_sgml, "a.dat", "正文", "no <doc> element"),
    ],
)
def test_what_a_reader_cannot_read_is_an_input_error(
    tmp_path: Path, reader: Reader, name: str, text: str, message: str
) -> None:
    write(tmp_path / "class.txt", "finance\n")
    path = write(tmp_path / name, text)
    with pytest.raises(InputError, match=message):
        read(reader, path if path.parent == tmp_path else path.parent)


@pytest.mark.parametrize(("reader", "name", "text"), [(read_comments, "a.csv", ""), (read_jsonl, "a.json", "\n")])
def test_an_empty_file_is_noted(tmp_path: Path, reader: Reader, name: str, text: str) -> None:
    report = CorpusReport()
    assert list(reader(write(tmp_path / name, text), report, PLAIN)) == []
    assert report.notes["empty files"] == 1
