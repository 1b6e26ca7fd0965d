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
from megadec.corpus.sources.comments import read_comments
from megadec.corpus.sources.jsonl import read_jsonl
from megadec.corpus.sources.parquet import is_prepared, read_parquet, read_prepared
from megadec.corpus.sources.pieces import Reader
from megadec.corpus.sources.reading import MALFORMED_ALLOWED, ReadOptions
from megadec.corpus.sources.sgml import read_sgml
from megadec.corpus.sources.text import read_markdown, read_text, sections
from megadec.corpus.sources.thucnews import read_thucnews, split_title
from tests.support.documents import write_documents

PLAIN = ReadOptions()


def read(reader: Reader, path: Path, **options: Any) -> list[Document]:
    return list(reader(path, CorpusReport(), ReadOptions(**options)))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


# --- THUCNews


def test_an_article_has_its_folder_as_label_and_its_first_line_as_title(tmp_path: Path) -> None:
    write(tmp_path / "体育" / "1.txt", "决赛今晚开战\n　　本报讯　球队已经到达。\n　　教练说。\n")
    write(tmp_path / "财 经" / "2.txt", "　　没有标题的文章。\n　　第二段。")
    one, two = read(read_thucnews, tmp_path)
    assert (one.id, one.label, one.title) == ("体育/1", "体育", "决赛今晚开战")
    assert one.text.startswith("　　本报讯")
    assert (two.id, two.label, two.title) == ("财 经/2", "财 经", "")


def test_the_mark_at_the_end_of_forum_posts_is_not_text(tmp_path: Path) -> None:
    write(tmp_path / "体育" / "1.txt", "坚持到了最后$LOTOzf$\n", "gb18030")
    (document,) = read(read_thucnews, tmp_path, encoding="auto")
    assert document.text == "坚持到了最后"


@pytest.mark.parametrize("classes", ["finance\nsports\n", "0\tfinance\n1\tsports\n"])
def test_a_list_of_titles_takes_its_labels_from_class_txt(tmp_path: Path, classes: str) -> None:
    write(tmp_path / "class.txt", classes)
    write(tmp_path / "train.txt", "\ufeff股价上涨\t0\n\n球队\t夺冠\t1\n")
    for path in (tmp_path / "train.txt", tmp_path):
        titles = [(document.text, document.label) for document in read(read_thucnews, path)]
        assert titles == [("股价上涨", "finance"), ("球队\t夺冠", "sports")]


def test_few_malformed_lines_are_dropped_and_many_are_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "train.txt", "标题\t0\n" + "没有制表符\n" * MALFORMED_ALLOWED)
    report = CorpusReport()
    assert len(list(read_thucnews(path, report, PLAIN))) == 1
    assert report.dropped["malformed_line"] == MALFORMED_ALLOWED
    write(path, "标题\t0\n" + "没有制表符\n" * (MALFORMED_ALLOWED + 1))
    with pytest.raises(InputError, match=r"train\.txt: line 12: no title<TAB>label; 11 of 12 lines are malformed"):
        read(read_thucnews, path)


def test_a_first_line_is_a_title_only_before_indented_lines() -> None:
    assert split_title("题\n　　文") == ("题", "　　文")
    for text in ("题\n文", "　　题\n　　文", "题", "题" * 80 + "\n　　文", "\n\n"):
        assert split_title(text)[0] == ""


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


# --- JSON


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
    assert read(read_sgml, write(tmp_path / "a.dat", begun_twice)) == read(read_sgml, write(tmp_path / "b.dat", DOC))


# --- what is refused


@pytest.mark.parametrize(
    ("reader", "name", "text", "message"),
    [
        (read_thucnews, "train.txt", "甲\t0\n乙\t7\n", r"line 2: label 7, but class\.txt has 1"),
        (read_comments, "a.csv", "cat,stars\n书,5\n", "no column of text among cat, stars; name it with --text_field"),
        (read_jsonl, "a.json", "[1,\n2]", "neither objects nor paragraphs"),
        (read_jsonl, "a.json", "{\n", "neither a JSON object a line nor one JSON value"),
        (read_parquet, "a.parquet", "no", r"a\.parquet: cannot be read"),
        (read_parquet, "folder/a.txt", "no", r"no \.parquet files"),
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
