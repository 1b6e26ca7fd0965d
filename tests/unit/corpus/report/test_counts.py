"""Counts by reason: merging, samples, the table."""

import json
from collections import Counter

from megadec.corpus.clean.context import MOST_UNKNOWN, Taken
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
        "4              8 read from wiki",
        "kept from source 0",
        "dropped: too_short",
        "| id of 0短",
        "files read as utf-8",
    ):
        assert words in table


def test_the_books_close_by_source_and_a_report_comes_back_from_its_state() -> None:
    report = CorpusReport()
    taken = Taken()
    taken.add("tables", 30, 2)
    taken.add("made uniform", -1)
    report.keep(document("留下的正文"), raw_characters=34, taken=taken)
    report.keep(document("另一篇"), held_out=True)
    report.drop(document("短"), "too_short")
    counts = report.sources["wiki"]
    assert (counts.read, counts.characters_read) == (3, 34 + 3 + 1)
    assert counts.unexplained_characters == 0
    again = CorpusReport.from_state(json.loads(json.dumps(report.state())))
    assert again == report


def test_the_name_of_a_run_is_the_source_of_all_that_it_reads() -> None:
    report = CorpusReport("mine")
    report.keep(document("留下的正文"))
    report.drop(document("短", "titles"), "too_short")
    assert list(report.sources) == ["mine"]


def test_of_many_names_of_unknown_templates_the_frequent_ones_are_remembered() -> None:
    total = Taken()
    for number in range(3 * MOST_UNKNOWN):
        total.merge(Taken(unknown=Counter({"常见": 1, f"少见{number}": 1})))
    assert total.unknown["常见"] == 3 * MOST_UNKNOWN
    assert len(total.unknown) <= 2 * MOST_UNKNOWN
