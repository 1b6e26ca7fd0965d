"""The page of a data set: what it says is what the report, the documents and the index say."""

import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from megadec.corpus.clean.context import Taken
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.report.page import measure_documents, write_page
from tests.support import PROJECT

KEPT = (
    Document("1", "news", "汉字" * 20, title="</script><b>题", licence="CC0"),
    Document("2", "wiki", "han 汉字 " * 200),
)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    report = CorpusReport()
    for document in KEPT:
        report.keep(document, taken=Taken(), raw_characters=len(document.title + document.text) + 40)
    report.of("wiki").taken.add("templates", 80)
    report.show("templates", Document("2", "wiki", "{{甲}}前文"), Document("2", "wiki", "前文"))
    report.drop(Document("3", "wiki", "短"), "too_short", "quality rules")
    report.drop(Document("4", "wiki", "</script>重复"), "duplicate", "duplicates")
    report.of("wiki").measured.update({"letters zh-Hans": 5, "letters en": 2, "quality from 0.95": 1})
    report.of("news").measured.update({"letters en": 4, "quality from 0.05": 1})
    report.note("files read as gb18030")
    rows = [{"text": document.text, "licence": document.licence} for document in KEPT]
    measured = measure_documents([pa.Table.from_pylist(rows[:1]), pa.Table.from_pylist(rows[1:])], 2)
    duplicates = {"cluster": [0, 0, 0], "id": ["2", "4", "5"], "title": ["首篇", "", "次篇"]}
    pq.write_table(pa.table(duplicates), tmp_path / "duplicates.parquet")
    index = {"pipeline_version": "9.9", "sources": {"news": {"tokens": 31}}}
    made = tmp_path / "set.report.html"
    clusters = tmp_path / "duplicates.parquet"
    write_page(made, "set", report.to_dict(), measured, index, clusters)
    return made


def data_of(page: Path) -> dict:
    text = page.read_text("utf-8")
    return json.loads(text.split('type="application/json">')[1].split("</script>")[0])


def test_every_stage_has_what_the_one_before_lost_less(page: Path) -> None:
    stages = {stage["name"]: (stage["documents"], stage["characters"]) for stage in data_of(page)["stages"]}
    raw = sum(len(document.title + document.text) for document in KEPT)
    assert stages == {
        "read": (4, raw + 80 + 1 + 11),
        "cleaned": (4, raw + 80 + 1 + 11),
        "judged": (3, raw + 80 + 11),
        "single": (2, raw + 80),
        "text": (2, raw),
        "kept": (2, raw),
    }


def test_lengths_shares_and_licences_are_those_of_the_documents(page: Path) -> None:
    data = data_of(page)
    assert data["lengths"] == [[32, 1], [64, 0], [128, 0], [256, 0], [512, 0], [1024, 1]]
    assert data["han"] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert data["licences"] == [{"name": "CC0", "documents": 1}, {"name": "", "documents": 1}]
    assert data["letters"] == [{"name": "en", "characters": 6}, {"name": "zh-Hans", "characters": 5}]
    assert (data["quality"][1], data["quality"][19], sum(data["quality"])) == (1, 1, 2)
    assert data["clusters"]["sizes"][1] == ["3", 1]
    assert data["clusters"]["largest"] == [{"size": 3, "titles": ["首篇", "4", "次篇"]}]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_page_shows_it_in_the_reader_s_language_and_in_the_other(page: Path) -> None:
    command = ["node", PROJECT / "tests" / "support" / "report.mjs", page, "zh-CN"]
    chinese, english = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for shown in (chinese, english):
        assert all(part in shown for part in ("</script>重复", "{{甲}}前文", "首篇 / 4 / 次篇", "CC0", "gb18030: 1"))
    assert "过短" in chinese
    assert "逐步处理" in chinese
    assert "各语言的文字" in chinese
    assert "质量分数" in chinese
    assert "too short" in english
    assert "Through the stages" in english


def test_the_page_asks_for_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not any(word in text for word in ("http://", "https://", "src=", "@import", "url("))
