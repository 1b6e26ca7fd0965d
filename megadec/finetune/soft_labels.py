"""Texts with a probability for each label, as `finetune/pseudo_labels.py` writes them, as labels for training.

A text's label is drawn by its probabilities. A drawn label is the probabilities' cross-entropy only in the mean over
draws (every variant of a text draws anew), so that a batch holds one label a text wherever it comes from.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from megadec.common.errors import InputError, suggest

TEXT, PROBABILITIES = "text", "probabilities"
# Written with six digits, a thousand labels are off by less than this.
SUM_TOLERANCE = 1e-3


def draw_labels(probabilities: np.ndarray, seed: int) -> np.ndarray:
    """int64 [texts]: a label for each text, drawn by its probabilities, a row of them; the same seed gives the same."""
    chance = np.random.default_rng(seed).random(len(probabilities))
    above = probabilities.cumsum(-1) > chance[:, None]
    # The sum may end a rounding below the chance: the last label then.
    labels: np.ndarray = np.where(above.any(-1), above.argmax(-1), probabilities.shape[1] - 1).astype(np.int64)
    return labels


def read_soft(path: Path, names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """What `label_texts` wrote: the texts, and the probability of every label, float64 [texts, labels], rows that add
    up to 1. names: the labels, in the order of the columns; one that a line leaves out has probability 0.

    Raises InputError naming the line: no JSON object of that form, an empty text, an unknown label, probabilities that
    are negative or do not add up to 1.
    """
    texts: list[str] = []
    rows: list[list[float]] = []
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                text, row = _read_line(line, f"{path}: line {number}", names)
                texts.append(text)
                rows.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if not texts:
        raise InputError(f"{path} has no text at all; tools/label.py writes such files")
    probabilities = np.asarray(rows)
    return texts, probabilities / probabilities.sum(-1, keepdims=True)


def _read_line(line: str, place: str, names: Sequence[str]) -> tuple[str, list[float]]:
    try:
        value = json.loads(line)
        text, given = value[TEXT], dict(value[PROBABILITIES])
        row = [float(given.pop(name, 0.0)) for name in names]
    except (ValueError, KeyError, TypeError) as error:
        form = f'{{"{TEXT}": ..., "{PROBABILITIES}": {{label: number, ...}}}}'
        raise InputError(f"{place} is not {form}: {error!r}") from error
    if given:
        unknown = next(iter(given))
        raise InputError(f"{place}: the label {unknown!r} is not one of the {len(names)}{suggest(str(unknown), names)}")
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"{place}: the text is empty")
    if not all(0.0 <= p < math.inf for p in row) or abs(sum(row) - 1.0) > SUM_TOLERANCE:
        raise InputError(f"{place}: the probabilities are not numbers from 0 that add up to 1: {row}")
    return text.strip(), row
