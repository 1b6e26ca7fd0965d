"""Coverage, pieces and keywords of counted words."""

import math

import pytest

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.words.counting import BoundedCounts, SourceCounts
from megadec.corpus.words.report import coverage, keywords, log_likelihood, pieces_of_words, together


def source(counts: dict[str, int], documents: int = 10) -> SourceCounts:
    words, seen = BoundedCounts(1000), BoundedCounts(1000)
    words.add(counts)
    seen.add({word: min(count, documents) for word, count in counts.items()})
    return SourceCounts({1: words}, seen, documents)


SOURCES = {
    "news": source({"股市": 50, "今天": 50, "上涨": 20, "的": 80}),
    "sport": source({"球队": 30, "今天": 50, "的": 120}),
}


def test_words_of_all_sources_are_ranked_by_their_sum_and_equal_ones_by_their_text():
    assert together(SOURCES) == [("的", 200), ("今天", 100), ("股市", 50), ("球队", 30), ("上涨", 20)]
    assert together({"a": source({"乙": 1, "甲": 1})}) == [("乙", 1), ("甲", 1)]


def test_coverage_counts_words_and_different_words():
    assert coverage(SOURCES["sport"], {"的", "今天"}) == {"words": 0.85, "different_words": 0.666667}
    assert coverage(SOURCES["sport"], set()) == {"words": 0.0, "different_words": 0.0}


def test_keywords_are_what_stands_here_and_not_elsewhere():
    found = keywords(SOURCES, 3)
    assert [one["word"] for one in found["news"]["log_likelihood"]] == ["股市", "上涨"]
    assert found["sport"]["log_likelihood"][0]["word"] == "球队"
    [first, *_] = found["sport"]["tf_idf"]
    assert first["word"] == "球队"
    assert first["score"] == pytest.approx(30 / 200 * math.log(20 / 10), rel=1e-3)
    assert found["sport"]["log_likelihood"][0]["per_million"] == 150_000
    assert found["sport"]["log_likelihood"][0]["per_million_elsewhere"] == 0


def test_log_likelihood_is_that_of_the_two_by_two_table():
    # The worked value of scipy.stats.chi2_contingency(lambda_="log-likelihood") without the rows of other words.
    assert log_likelihood(30, 1000, 10, 1000) == pytest.approx(2 * (30 * math.log(1.5) + 10 * math.log(0.5)))
    assert log_likelihood(10, 1000, 30, 1000) == 0
    assert log_likelihood(10, 1000, 0, 0) == 0


def test_one_source_has_no_rest_to_stand_out_from():
    assert keywords({"news": SOURCES["news"]}, 3)["news"]["log_likelihood"] == []


def test_a_tokenizer_is_measured_on_the_words_as_often_as_they_stand(tiny_tokenizer_path):
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    single = next(w for w in ("的", "是", "人", "中") if len(tokenizer.encode(w)) == 1)
    other = "\U00020bb7"
    assert tokenizer.is_byte[tokenizer.encode(other)].all()
    found = pieces_of_words({"a": source({single: 3, other: 1})}, tokenizer)["a"]
    assert found["single_piece_words"] == 0.75
    assert found["single_piece_different_words"] == 0.5
    assert found["words_in_bytes"] == 0.25
    assert found["pieces_per_word"] == (3 + len(tokenizer.encode(other))) / 4
