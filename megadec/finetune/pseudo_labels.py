"""What finished classifiers say of texts, as training data for another one.

Writes JSON lines: a text and the probability of each label, the mean over the classifiers. Fine-tuning takes the file
as `data.soft`: one decoder learns what several know together (Hinton et al., arXiv 1503.02531), and texts that nobody
has labelled become worth something. All texts are held in memory, so that each classifier is opened once and only one
at a time.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from megadec.common.errors import ConfigError, InputError, check_range
from megadec.common.files import whole_file
from megadec.common.log import logger
from megadec.corpus.document import full_text
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import find_source
from megadec.corpus.sources.files import reading
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.thucnews import without_marks
from megadec.finetune.classify import load_classifier
from megadec.finetune.examples import source_of
from megadec.finetune.soft_labels import PROBABILITIES, TEXT

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PseudoOptions:
    """models: classifiers (runs, checkpoints, megadec or Hugging Face folders) of the same labels in the same order.

    input: files or folders of texts; a .txt given by itself is a text a line, or `title<TAB>label` lines. source: their
    reader's name, by the file's suffix when not given. output: the .jsonl file, which is new.
    least_confidence: texts whose most probable label has less than this are left out. read: how the texts are read.
    """

    models: tuple[Path, ...]
    input: tuple[Path, ...]
    output: Path
    source: str = ""
    least_confidence: float = 0.0
    read: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        if not self.models or not self.input:
            raise ConfigError("models and input name at least one classifier and one file or folder of texts")
        check_range(self, "", "least_confidence", least=0, below=1)


def label_texts(options: PseudoOptions) -> dict[str, int | float]:
    """Write `options.output`; returns how many texts were read and written, and the mean confidence of those.

    Raises ConfigError when a model is no classifier or knows other labels than the first, InputError for texts that
    cannot be read or when there is none, and what opening a model raises.
    """
    if options.output.exists():
        raise ConfigError(f"--output {options.output} exists already; choose another file, or remove it first")
    texts = list(_texts(options))
    if not texts:
        raise InputError(f"{', '.join(map(str, options.input))}: no text at all")
    total = np.zeros(())
    labels: list[str] = []
    for path in options.models:
        classifier = load_classifier(path)
        labels = labels or classifier.labels
        if classifier.labels != labels:
            raise ConfigError(f"{path} knows the labels {classifier.labels}, {options.models[0]} knows {labels}")
        total = total + classifier.probabilities(texts).double().numpy()
        log.info("%s: %s texts", path, f"{len(texts):,}")
    probabilities = total / len(options.models)
    confidence = probabilities.max(-1)
    kept = np.flatnonzero(confidence >= options.least_confidence)
    with whole_file(options.output, "w") as stream:
        for number in kept.tolist():
            rounded = {name: round(p, 6) for name, p in zip(labels, probabilities[number].tolist(), strict=True)}
            stream.write(json.dumps({TEXT: texts[number], PROBABILITIES: rounded}, ensure_ascii=False) + "\n")
    mean = float(confidence[kept].mean()) if len(kept) else 0.0
    return {"read": len(texts), "written": len(kept), "mean_confidence": round(mean, 4)}


def _texts(options: PseudoOptions) -> Iterator[str]:
    report = CorpusReport()
    for path in options.input:
        source, read = options.source, options.read
        if not source and path.suffix == ".txt" and not _is_list(path):
            source, read = "text", replace(read, lines_per_document=read.lines_per_document or 1)
        for document in find_source(source_of(path, source)).read(path, report, read):
            if text := without_marks(full_text(document)).strip():
                yield text
    for reason, count in report.dropped.items():
        log.warning("%s texts dropped: %s", count, reason)


def _is_list(path: Path) -> bool:
    """Whether a .txt holds `title<TAB>label` lines and not a text a line."""
    with reading(str(path)), open(path, "rb") as stream:
        return b"\t" in stream.readline()
