"""The classifier of quality: what it says of a text does not depend on chance, and its file is checked."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from megadec.common.errors import InputError
from megadec.corpus.quality.classifier import (
    BUCKETS,
    FORMAT,
    HEADER,
    PIECE_CHARACTERS,
    QualityClassifier,
    features_of,
    load_classifier,
    pieces_of,
    to_bytes,
)


def classifier(seed: int = 0) -> QualityClassifier:
    weights = np.random.default_rng(seed).normal(size=BUCKETS).astype(np.float32)
    return QualityClassifier(weights, 0.25, {"learned": {"good": 3, "bad": 4}})


def test_a_file_gives_back_the_classifier_that_was_written(tmp_path: Path) -> None:
    made, path = classifier(), tmp_path / "q.safetensors"
    path.write_bytes(to_bytes(made))
    read = load_classifier(path)
    assert (read.sha256, read.record, read.score("一段话")) == (made.sha256, made.record, made.score("一段话"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a whole file"),
        (b"x" * 100, "not a whole file"),
        (to_bytes(classifier())[:-5], "not a whole file"),
        (to_bytes(classifier())[:-5] + b"12345", "damaged or was changed"),
        (save({"weights": np.zeros(3, np.float32)}), "format None, not megadec-quality/1"),
        (save({"weights": np.zeros(3, np.float32)}, {HEADER: json.dumps({"format": FORMAT})}), "not a whole file"),
        (
            save(
                {"weights": np.zeros(3, np.float32), "bias": np.zeros(1, np.float32)},
                {HEADER: json.dumps({"format": FORMAT, "record": {}})},
            ),
            "damaged or was changed",
        ),
    ],
)
def test_a_file_that_is_damaged_or_another_one_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / f"{abs(hash(content))}.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as raised:
        load_classifier(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_classifier(tmp_path / "none.safetensors")


def test_features_have_length_one_and_know_no_digits_or_case() -> None:
    buckets, values = features_of("2024年5月iPhone发布")
    assert np.linalg.norm(values) == pytest.approx(1)
    assert len(set(buckets.tolist())) == len(buckets)
    for part, other in zip((buckets, values), features_of("1999年8月IPHONE发布"), strict=True):
        assert np.array_equal(part, other)
    assert not np.array_equal(buckets, features_of("2024年5月iPhone布发")[0])


@pytest.mark.parametrize("characters", [1, 1999, 2999, 3001, 19_999, 20_000, 500_000])
def test_a_text_is_judged_by_pieces_of_about_one_size(characters: int) -> None:
    pieces = pieces_of("字" * characters)
    assert 1 <= len(pieces) <= 10
    assert max(map(len, pieces)) <= 1.5 * PIECE_CHARACTERS
    assert sum(map(len, pieces)) >= min(characters, 20_000) - len(pieces)


def test_an_empty_text_has_a_score() -> None:
    assert 0 < classifier().score("") < 1


def test_a_long_text_takes_no_longer_than_its_first_pieces() -> None:
    made, start = classifier(), time.process_time()
    made.score("一段很长的话。" * 1_000_000)
    assert time.process_time() - start < 2


def test_a_record_is_kept_as_json(tmp_path: Path) -> None:
    made = QualityClassifier(classifier().weights, 0.0, {"说明": ["甲", 1.5]})
    (tmp_path / "q.safetensors").write_bytes(to_bytes(made))
    assert json.dumps(load_classifier(tmp_path / "q.safetensors").record, ensure_ascii=False) == '{"说明": ["甲", 1.5]}'
