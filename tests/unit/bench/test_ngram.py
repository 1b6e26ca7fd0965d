"""The bench's n-grams against probabilities worked out by hand."""

import math

import numpy as np
import pytest

from bench.ngram import DISCOUNT, UNSEEN_COUNT, nats_of


def test_unigram_and_bigram_are_those_of_the_formula() -> None:
    train, test = np.array([2, 3, 2, 3, 2, 2]), np.array([2, 3])
    unigram_of_3 = (2 + UNSEEN_COUNT) / (6 + 4 * UNSEEN_COUNT)
    # 2 is followed by something three times: twice by 3, once by 2.
    bigram = (2 - DISCOUNT) / 3 + DISCOUNT * 2 / 3 * unigram_of_3
    assert nats_of(train, test, 4, bos_id=1) == pytest.approx((-math.log(unigram_of_3), -math.log(bigram)))


def test_the_bigram_is_a_probability_over_the_vocabulary() -> None:
    train = np.random.default_rng(0).integers(2, 20, 500)
    total = sum(math.exp(-nats_of(train, np.array([5, token]), 20, bos_id=-1)[1]) for token in range(20))
    assert total == pytest.approx(1.0)
