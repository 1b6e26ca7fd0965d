"""Runs wikitext_cases.md: wikitext -> text, readable as documentation."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.document import Document

FILE = Path(__file__).with_name("wikitext_cases.md")
_CASE = re.compile(r"- `(.+)` → `(.+)`")


class Case(NamedTuple):
    line: int
    variant: str
    wikitext: str
    text: str


def read_cases(text: str) -> list[Case]:
    """The cases of the file; a line that begins like one and is none is an error."""
    cases: list[Case] = []
    variant = "keep"
    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("## "):
            variant = "keep"
        elif line.startswith("Variant: "):
            variant = line.removeprefix("Variant: ").strip()
        elif line.startswith("- "):
            match = _CASE.fullmatch(line)
            assert match, f"{FILE.name}:{number}: not `wikitext` → `text`"
            cases.append(Case(number, variant, *(part.replace("↵", "\n") for part in match.groups())))
    return cases


CASES = read_cases(FILE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"line{case.line}")
def test_wikitext_becomes_the_text_that_a_reader_sees(case: Case) -> None:
    page = Document("1", "zhwiki", case.wikitext, title="题")
    cleaned = clean_wikitext(page, CleanContext(case.variant))
    assert (cleaned if isinstance(cleaned, str) else cleaned.text) == case.text


def test_there_are_at_least_250_cases() -> None:
    assert len(CASES) >= 250
    assert len({(case.variant, case.wikitext) for case in CASES}) == len(CASES)
