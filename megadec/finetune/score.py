"""How good a finished classifier is: accuracy, precision, recall, F1 and the confusion matrix on labelled texts.

The means over labels ("macro") leave out a label that is neither true nor said for any text, as it says nothing, so
they compare between models on one set and not between sets with other labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from megadec.common.errors import ConfigError, InputError, needs_extra
from megadec.corpus.sources.reading import ReadOptions
from megadec.engine.metrics.plot import draw_confusion
from megadec.export.read.open_model import open_model
from megadec.finetune.classify import classifier_of
from megadec.finetune.examples import LabelledOptions, LabelledText, number_of, read_labelled

# Shapes: N texts, L labels.


@dataclass(frozen=True)
class ClassifierScoreOptions:
    """model: a run (its best checkpoint), a checkpoint, a megadec or a Hugging Face folder of a classifier.

    data: a file or folder of labelled texts. output: a JSON file for the result beside standard output.
    confusion: a PNG of the confusion matrix. source, read: how the texts are read, as in fine-tuning.
    dtype: of the weights.
    """

    model: Path
    data: Path
    output: Path | None = None
    confusion: Path | None = None
    source: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.confusion is not None and self.confusion.suffix != ".png":
            raise ConfigError(f"confusion={self.confusion} does not end in .png; that is what is written")


def score_classifier(options: ClassifierScoreOptions) -> dict[str, Any]:
    """Classify every text and compare; draw the confusion matrix where `options.confusion` says.

    Raises ConfigError (no classifier), InputError naming file and line for what cannot be read and for a label that the
    classifier does not have, MissingExtraError, and what `open_model` raises.
    """
    source = open_model(options.model)
    classifier = classifier_of(source, getattr(torch, options.dtype))
    reading = LabelledOptions(source=options.source, read=options.read)
    texts = list(read_labelled(options.data, reading))
    if not texts:
        raise InputError(f"{options.data} has no labelled text at all")
    true_N = label_numbers(texts, classifier.labels)
    said_N = classifier.logits([one.text for one in texts]).argmax(-1).numpy()
    found = figures(true_N, said_N, classifier.labels)
    if options.confusion is not None:
        title = f"{len(texts):,} texts, accuracy {found['accuracy']:.4f}"
        draw_confusion(found["confusion"], classifier.labels, options.confusion, title)
    return {
        "model": str(options.model),
        "step": source.step,
        "data": str(options.data),
        "dtype": options.dtype,
        **found,
    }


def label_numbers(texts: Sequence[LabelledText], labels: Sequence[str]) -> np.ndarray:
    """int64 [N]: each text's label as its number in `labels`. Raises InputError for one that is not among them."""
    numbers = {name: number for number, name in enumerate(labels)}
    return np.asarray([number_of(one, numbers) for one in texts], dtype=np.int64)


def figures(true_N: np.ndarray, said_N: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """Accuracy; precision, recall and F1 as macro and micro means and of each label; the confusion matrix.

    true_N, said_N: label numbers. Where nothing was said (or nothing is true) of a label, its precision (or recall) is
    0. confusion: rows are true labels, columns those said, both in the order of `labels`.
    Raises MissingExtraError without scikit-learn.
    """
    with needs_extra("scikit-learn", "finetune"):
        from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
    assert len(true_N) == len(said_N) > 0, "one answer for each text"
    numbers = np.arange(len(labels))
    there = np.union1d(true_N, said_N)

    def mean(kind: Literal["macro", "micro"]) -> dict[str, float]:
        values = precision_recall_fscore_support(true_N, said_N, labels=there, average=kind, zero_division=0.0)
        return dict(zip(("precision", "recall", "f1"), map(float, values[:3]), strict=True))

    by_label = precision_recall_fscore_support(true_N, said_N, labels=numbers, zero_division=0.0)
    per_label = {
        name: {"precision": float(p), "recall": float(r), "f1": float(f), "texts": int(n)}
        for name, p, r, f, n in zip(labels, *by_label, strict=True)
    }
    return {
        "texts": len(true_N),
        "accuracy": float(np.mean(true_N == said_N)),
        "macro": mean("macro"),
        "micro": mean("micro"),
        "per_label": per_label,
        "labels": list(labels),
        "confusion": confusion_matrix(true_N, said_N, labels=numbers).tolist(),
    }
