"""The benchmark of tokenizing: both cases have a speed, and cases that disagree are an error."""

from unittest import mock

import pytest

from bench.corpus_tokenize import OURS, PLAIN, tokenize_figures
from megadec.common.errors import TrainingError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document


def test_both_cases_have_a_speed_and_the_plain_loop_is_the_measure(
    tiny_documents: list[Document], tokenizer: Tokenizer
) -> None:
    figures = tokenize_figures(tiny_documents[:20], tokenizer, rounds=2)
    assert figures["documents"] == 20
    assert figures["cases"].keys() == {PLAIN, OURS}
    assert figures["cases"][PLAIN]["speed_ratio"] == 1
    assert all(row["megabytes_per_second"] > 0 for row in figures["cases"].values())


def test_other_tokens_are_an_error(tiny_documents: list[Document], tokenizer: Tokenizer) -> None:
    wrong = mock.patch("bench.corpus_tokenize.encode_documents", return_value=[[1, 5, 2]] * 20)
    with wrong, pytest.raises(TrainingError, match="other tokens"):
        tokenize_figures(tiny_documents[:20], tokenizer, rounds=1)
