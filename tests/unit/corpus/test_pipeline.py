"""Raw documents to those that are learned: cleaning, judging and duplicates."""

from dataclasses import replace
from typing import Any

from megadec.corpus.dedup.exact import digest_of
from megadec.corpus.document import Document, full_text
from megadec.corpus.options import PrepareOptions
from megadec.corpus.pipeline import cleaned, without_duplicates
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import SOURCES

COMMENTS = SOURCES["comments"]
OPTIONS = PrepareOptions(source="comments", input=(), workers=1)


def comments(count: int) -> list[Document]:
    return [Document(str(n), "comments", "坏" if n % 10 == 0 else f"第{n}号菜很好吃，送餐也快。") for n in range(count)]


def run(documents: list[Document], **changes: Any) -> tuple[list[Document], CorpusReport]:
    report = CorpusReport()
    return [passed.document for passed, _ in cleaned(documents, COMMENTS, replace(OPTIONS, **changes), report)], report


def test_every_part_of_a_document_becomes_uniform() -> None:
    raw = Document("a\n1", "comments", "很好&hellip;\r\n　　ＯＫ，下次再来", title=" 题\t目 ", label="１", url=" u ")
    (document,), _ = run([raw])
    assert document == Document("a 1", "comments", "很好…\nOK，下次再来", "题 目", "1", "u", "", document.variant)


def test_the_hash_is_that_of_the_cleaned_text() -> None:
    for passed, digest in cleaned(comments(3), COMMENTS, OPTIONS, CorpusReport()):
        assert digest == digest_of(full_text(passed.document))


def test_name_and_licence_of_the_run_reach_the_documents() -> None:
    raw = [Document("1", "comments", "这家店的菜很好吃"), Document("2", "comments", "送餐很快很好", licence="MIT")]
    documents, _ = run(raw, name="reviews", licence="CC0-1.0")
    found = [(document.source, document.licence) for document in documents]
    assert found == [("reviews", "CC0-1.0"), ("reviews", "MIT")]


def test_the_text_changes_variant_and_the_label_keeps_the_original() -> None:
    raw = [Document("1", "comments", "這家飯館的飯菜很便宜", title="飯館")]
    (kept,), _ = run(raw)
    assert (kept.text, kept.variant) == (raw[0].text, "zh-Hant")
    (converted,), _ = run(raw, variant="zh-Hans")
    assert (converted.text, converted.title, converted.variant) == ("这家饭馆的饭菜很便宜", "饭馆", "zh-Hant")


def test_duplicates_go_across_chunks_and_sources_and_so_do_excluded_texts() -> None:
    documents = [*comments(600), *(replace(document, source="other") for document in comments(600))]
    report = CorpusReport()
    excluded = [digest_of(full_text(document)) for document in comments(5)[1:]]
    passed = list(without_duplicates(cleaned(documents, COMMENTS, OPTIONS, report), excluded, report))
    assert {item.document.source for item, _ in passed} == {"comments"}
    assert len(passed) == 536
    assert (report.dropped["excluded"], report.dropped["duplicate"]) == (8, 536)


def test_title_and_text_are_judged_and_count_together() -> None:
    raw = [Document("1", "comments", "好吃", title="甲店的菜"), Document("2", "comments", "好吃", title="乙店的菜")]
    report = CorpusReport()
    assert len(list(without_duplicates(cleaned(raw, COMMENTS, OPTIONS, report), (), report))) == 2
