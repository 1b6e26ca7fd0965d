"""A small classifier of good and bad text: logistic regression over hashed character n-grams, like fastText's.

In: the cleaned text of a document. Out: the probability that it is good. It needs numpy alone; `train_quality` makes
its file, which holds numbers and JSON only.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from megadec.common.errors import InputError
from megadec.corpus.quality.characters import codes_of

# Shapes: F n-grams of a piece, B buckets.
FORMAT, HEADER = "megadec-quality/1", "quality"
BUCKETS = 1 << 18
LONGEST_NGRAM = 2
# A long text is judged by its first pieces, each as long as what the classifier learned from.
PIECE_CHARACTERS = 2000
MOST_PIECES = 10
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(64 - 18)


@dataclass(frozen=True)
class QualityClassifier:
    """weights: float32 [B]. record: what it was trained on and how well it does on held-out examples.

    sha256: of the weights and the bias; two files with the same one judge alike.
    """

    weights: np.ndarray
    bias: float
    record: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """The hash of what decides."""
        return hashlib.sha256(self.weights.tobytes() + np.float32(self.bias).tobytes()).hexdigest()

    def score(self, text: str) -> float:
        """The probability, from 0 to 1, that `text` is good: the mean of its first pieces' probabilities."""
        return float(np.mean([self._score_piece(piece) for piece in pieces_of(text)]))

    def _score_piece(self, piece: str) -> float:
        buckets, values = features_of(piece)
        logit = float(self.weights[buckets] @ values) + self.bias
        return float(1 / (1 + np.exp(-logit)))


def pieces_of(text: str) -> list[str]:
    """The first pieces of a text, at least one; a short rest belongs to the piece before it."""
    count = min(max(round(len(text) / PIECE_CHARACTERS), 1), MOST_PIECES)
    size = len(text) // count if len(text) < MOST_PIECES * PIECE_CHARACTERS else PIECE_CHARACTERS
    return [text[place * size : (place + 1) * size] for place in range(count)]


def features_of(piece: str) -> tuple[np.ndarray, np.ndarray]:
    """int64 [F] buckets and float32 [F] values: 1 + log of how often, scaled to length 1; digits count as one."""
    codes = codes_of(piece.lower()).astype(np.uint64)
    codes[(codes >= 0x30) & (codes < 0x3A)] = 0x30
    hashes, ngrams = codes, [codes]
    for length in range(2, LONGEST_NGRAM + 1):
        hashes = hashes[:-1] * _MULTIPLIER + codes[length - 1 :]
        ngrams.append(hashes + np.uint64(length))
    mixed = np.concatenate(ngrams) * _MULTIPLIER
    buckets, counts = np.unique((mixed ^ (mixed >> np.uint64(29))) * _MULTIPLIER >> _SHIFT, return_counts=True)
    values = 1 + np.log(counts)
    values /= max(float(np.sqrt(values @ values)), 1e-9)
    return buckets.astype(np.int64), values.astype(np.float32)


def to_bytes(classifier: QualityClassifier) -> bytes:
    """A safetensors file: the weights, and the record as JSON in its header."""
    tensors = {"weights": classifier.weights, "bias": np.array([classifier.bias], dtype=np.float32)}
    header = {"format": FORMAT, "sha256": classifier.sha256, "record": classifier.record}
    # One entry: safetensors writes several in an order of chance.
    return save(tensors, {HEADER: json.dumps(header, ensure_ascii=False)})


@lru_cache(maxsize=4)
def load_classifier(path: Path) -> QualityClassifier:
    """The classifier in a file, read once a process. Raises InputError for one that is missing, another, or damaged."""
    try:
        with safe_open(path, "numpy") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            if header.get("format") != FORMAT:
                raise InputError(f"{path}: format {header.get('format')!r}, not {FORMAT}: make it with train_quality")
            weights, bias = file.get_tensor("weights"), float(file.get_tensor("bias")[0])
            classifier = QualityClassifier(weights, bias, header["record"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, SafetensorError, KeyError, IndexError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a whole file of a quality classifier: {error}") from error
    if weights.shape != (BUCKETS,) or not np.isfinite(weights).all() or header.get("sha256") != classifier.sha256:
        raise InputError(f"{path}: its weights are not those of its hash; it is damaged or was changed")
    return classifier
