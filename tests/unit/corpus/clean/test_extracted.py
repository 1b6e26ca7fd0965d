"""What extractors of Wikipedia text leave behind."""

from __future__ import annotations

from dataclasses import replace

from megadec.corpus.clean.extracted import clean_extracted
from megadec.corpus.document import Document

RAW = Document("1", "wiki", "数学\n\n数学（）是-{zh-hans:软件; zh-hant:軟體}-的基础（，）。", title="数学")


def test_what_extractors_leave_behind_is_taken_out() -> None:
    assert clean_extracted(RAW) == replace(RAW, text="数学是软件的基础。")


def test_a_text_that_only_repeats_its_title_is_empty() -> None:
    assert clean_extracted(replace(RAW, text="数学\n")) == "empty"
