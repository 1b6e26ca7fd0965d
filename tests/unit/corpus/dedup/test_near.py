"""MinHash signatures against exact Jaccard similarity and against datasketch, and bands."""

import random

import numpy as np
import pytest
from datasketch import MinHash

from megadec.corpus.dedup.near import (
    MOST_BANDS,
    PERMUTATIONS,
    SHINGLE_CHARACTERS,
    SIGNATURE_BYTES,
    bands_of,
    code_points,
    matches_at,
    ngram_hashes,
    signature_of,
    similarity,
)

CHANCE = random.Random(1)


def prose(characters: int) -> str:
    return "".join(chr(CHANCE.randrange(0x4E00, 0x4F00)) for _ in range(characters))


def shingles(text: str) -> set[str]:
    return {text[at : at + SHINGLE_CHARACTERS] for at in range(len(text) - SHINGLE_CHARACTERS + 1)}


def estimated(one: str, other: str) -> float:
    left, right = (np.frombuffer(signature_of(text), np.uint8) for text in (one, other))
    return float(similarity(np.count_nonzero(left == right)))


def datasketch_signature(text: str) -> MinHash:
    made = MinHash(128)  # as many bytes as ours
    made.update_batch([shingle.encode() for shingle in shingles(text)])
    return made


def test_signatures_estimate_the_jaccard_similarity_as_well_as_datasketch() -> None:
    ours, theirs = [], []
    for overlap in np.linspace(0, 1, 60):
        shared, one, other = prose(int(400 * overlap) + 5), prose(int(400 * (1 - overlap)) + 5), prose(200)
        left, right = shared + one, shared + other
        true = len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))
        ours.append(estimated(left, right) - true)
        theirs.append(datasketch_signature(left).jaccard(datasketch_signature(right)) - true)
    assert abs(np.mean(ours)) < 0.01
    assert np.std(ours) < np.std(theirs) < 0.06


def test_the_signature_is_that_of_the_set() -> None:
    text = prose(300)
    assert signature_of(text) == signature_of(text)
    assert estimated(text + text, text) > 0.95
    assert len(signature_of("五个字的文")) == SIGNATURE_BYTES


def test_ngrams_are_known_by_their_characters_alone() -> None:
    hashes = ngram_hashes(code_points("甲乙丙丁甲乙丙"), 3)
    assert len(hashes) == 5
    assert hashes[0] == hashes[4]
    assert len(set(hashes.tolist())) == 4
    assert len(ngram_hashes(code_points("甲乙"), 3)) == 0
    assert len(set(ngram_hashes(np.arange(0x4E00, 0x9FA0, dtype=np.uint64), 1).tolist())) == 0x9FA0 - 0x4E00


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_pairs_at_the_threshold_meet_in_a_band(threshold: float) -> None:
    bands, rows = bands_of(threshold)
    assert bands * rows <= PERMUTATIONS
    assert bands <= MOST_BANDS
    assert 1 - (1 - threshold**rows) ** bands >= 0.99


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.93, 1.0])
def test_as_many_values_are_asked_for_as_the_threshold_needs(threshold: float) -> None:
    below, at = similarity(np.array([matches_at(threshold) - 1, matches_at(threshold)]))
    assert below < threshold <= at + 1e-6
