"""Counts by reason: merging, samples, the table."""

from megadec.corpus.document import Document
from megadec.corpus.report.counts import SAMPLES_PER_REASON, CorpusReport


def document(text: str, source: str = "wiki") -> Document:
    return Document(f"id of {text[:3]}", source, text)


def filled(start: int, count: int) -> CorpusReport:
    report = CorpusReport()
    for number in range(start, start + count):
        report.drop(document(f"{number}短"), "too_short")
        report.keep(document("留下的正文", f"source {number % 2}"))
        report.note("files read as utf-8")
    return report


def test_merged_reports_count_as_one_report_of_everything() -> None:
    parts = [filled(0, 2), filled(2, 5)]
    merged = CorpusReport()
    for part in parts:
        merged.merge(part)
    assert merged.to_dict() == filled(0, 7).to_dict()


def test_a_report_keeps_a_few_short_samples_a_reason() -> None:
    report = filled(0, 20)
    assert len(report.samples["too_short"]) == SAMPLES_PER_REASON
    report.drop(document("很长\n\x00的" * 500), "too_long")
    (sample,) = report.samples["too_long"]
    assert len(sample) < 100
    assert sample.isprintable()


def test_the_table_shows_counts_reasons_and_samples() -> None:
    table = filled(0, 4).render()
    for words in (
        "8                read",
        "kept from source 0",
        "dropped: too_short",
        "| id of 0短",
        "files read as utf-8",
    ):
        assert words in table
