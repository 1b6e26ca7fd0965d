"""Laws of the tables of templates: what is asked for is found, nothing is guessed, nothing raises."""

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megadec.corpus.clean.wiki.templates import ages, amounts, blocks, cells, dates, inline, languages, places
from megadec.corpus.clean.wiki.templates.arguments import Page
from megadec.corpus.clean.wiki.templates.expand import expand, has_rule, template_name
from megadec.corpus.clean.wiki.templates.functions import FUNCTIONS

PAGE = Page("题", "zh-Hans")
NAMES = [
    name
    for table in (ages, amounts, blocks, cells, dates, inline, languages, places)
    for names, _ in table.TABLE
    for name in names
]
VALUES = st.lists(
    st.tuples(
        st.sampled_from(["1", "2", "3", "4", "5", "6", "title1", "note1", "text", "u", "col1", "lang", "year"]),
        st.text(alphabet="0123456789甲乙-+/.{}[]()=,: enjaxCV\n%", max_size=12),
    ),
    max_size=7,
)


def shown(name: str, *values: str) -> str | None:
    return expand(name, [(str(number), value) for number, value in enumerate(values, 1)], PAGE)


def test_every_name_of_a_table_is_one_that_an_editor_can_write() -> None:
    """`=` and `|` are written `{{=}}`, `{{!}}`: names that the tables spell as they stand."""
    assert [name for name in NAMES if template_name(name) != name] == []
    assert all(has_rule(name) for name in NAMES)


@pytest.mark.parametrize(
    "name", ["Template:Lang-en", " lang-en", "模板:lang-en", "subst:lang-en", "LANG-EN", "Lang_en"]
)
def test_a_name_is_found_however_it_is_written(name: str) -> None:
    wanted = "英语：tea" if name != "Lang_en" else None
    assert shown(name, "tea") == wanted


@pytest.mark.parametrize(
    "name", ["infobox person", "某模板", "update", "navbox", "reflist", "#invoke:甲", "candidates"]
)
def test_a_template_that_no_rule_knows_shows_nothing(name: str) -> None:
    assert shown(name, "2010", "甲") is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*NAMES, *(f"{name}:1" for name in FUNCTIONS)]), VALUES)
def test_no_argument_makes_a_rule_fail(name: str, parameters: list[tuple[str, str]]) -> None:
    text = expand(name, parameters, PAGE)
    assert text is None or isinstance(text, str)


@pytest.mark.parametrize(
    "name",
    [name for names, _ in (*dates.TABLE, *ages.TABLE) for name in names] + ["#time:Y", "#timel:Y年", "#time:Y-m-d"],
)
def test_no_rule_of_dates_knows_today(name: str) -> None:
    """An age or a count of years that changes with the day of the run would be invented."""
    for values in ((), ("1980", "1", "1"), ("1980",)):
        text = shown(name, *values) or ""
        assert str(date.today().year) not in text
        assert str(date.today().year - 1980) not in text.replace("1980", "")
