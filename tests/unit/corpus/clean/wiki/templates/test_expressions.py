"""Laws of `{{#expr: }}`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.corpus.clean.wiki.templates.expressions import evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"), ("(1 + 2) * 3", "9"), ("2 ^ 3 ^ 2", "64"), ("-2 ^ 2", "4"), ("7 mod 3", "1"),
        ("7 / 2", "3.5"), ("10 / 4 round 0", "3"), ("2.345 round 2", "2.35"), ("1 = 1 and 2 > 3", "0"), ("not 0", "1"),
        ("floor 2.7", "2"), ("3 <> 3", "0"), ("2 <= 2", "1"), ("1e3", "1000"), ("6 × 7", "42"),
        ("5 − 7", "-2"), ("1/3", "0.33333333333333"), ("ceil(pi)", "4"), ("100 div 8", "12.5"), ("- - 3", "3"),
        ("abs -4", "4"),
    ],
)  # fmt: skip
def test_an_expression_has_the_value_that_mediawiki_gives_it(expression: str, value: str) -> None:
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "wrong", ["", "1 +", "1 / 0", "甲", "1 2", "(1", "1)", "9^9^9^9", "sqrt -1", "(" * 300, "5 mod 0"]
)
def test_a_wrong_expression_has_none(wrong: str) -> None:
    assert evaluate(wrong) is None


@given(st.text(alphabet="0123456789.+-*/^()=<>! modrundivabsflor", max_size=40))
def test_no_text_makes_it_fail(text: str) -> None:
    evaluate(text)
