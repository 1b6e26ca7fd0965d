"""The command train-quality: good and bad examples in; a classifier out, with its precision and recall on examples
that it did not learn from.

Examples go through the same cleaning as documents, so that the classifier learns from what it will judge.
"""

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, InputError, check_range, needs_extra
from megadec.common.files import whole_file
from megadec.common.log import logger, progress
from megadec.corpus.dedup.exact import digest_of
from megadec.corpus.document import full_text
from megadec.corpus.options import PrepareOptions
from megadec.corpus.pipeline import judged
from megadec.corpus.quality.classifier import BUCKETS, QualityClassifier, features_of, pieces_of, to_bytes
from megadec.corpus.quality.rules import FilterOptions
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import find_source
from megadec.corpus.sources.encoding import check_encoding
from megadec.corpus.sources.parquet import is_prepared
from megadec.corpus.sources.pieces import pieces, read_piece
from megadec.corpus.sources.reading import ReadOptions

# Shapes: E examples.
THRESHOLDS = tuple(round(0.1 * tenth, 1) for tenth in range(1, 10))
LEAST_HELD_OUT = 10  # of each side: with fewer an interval says nothing
SOURCE_OF_SUFFIX = {
    ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl", ".csv": "comments", ".tsv": "comments",
    ".parquet": "parquet", ".txt": "text", ".md": "markdown", ".xml": "zhwiki",
}  # fmt: skip
_COMPRESSED = (".xz", ".gz", ".bz2", ".zst")
GOOD, BAD = "good", "bad"

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainQualityOptions:
    """A classifier of good and bad text.

    Attributes:
        good: files or folders of texts as they should be.
        bad: files or folders of texts as they should not be.
        output: the classifier's file (.safetensors).
        good_source: what the good files are, as in `prepare`; default: by their suffix.
        bad_source: what the bad files are; default: by their suffix.
        read: how the files are read.
        held_out_fraction: share of the examples that the classifier is measured on and does not learn from.
        max_examples: of each side at most so many are used, drawn by a hash of their text; 20,000 a side need about
            1 GB.
        inverse_regularization: more follows the examples closer (C of logistic regression).
        seed: draws the examples and the held-out ones; the same one gives the same file.
        overwrite: replace what is there.
    """

    good: tuple[Path, ...]
    bad: tuple[Path, ...]
    output: Path
    good_source: str = ""
    bad_source: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)
    held_out_fraction: float = 0.2
    max_examples: int = 20_000
    inverse_regularization: float = 10.0
    seed: int = 0
    overwrite: bool = False


def main(argv: Sequence[str]) -> None:
    """Train what the command line asks for, and print how well it does."""
    options = parse(TrainQualityOptions, argv, description="Train a classifier of good and bad text.")
    print(render(train_quality(options).record))


def train_quality(options: TrainQualityOptions) -> QualityClassifier:
    """Train, measure and write the classifier.

    Raises ConfigError for options that do not fit, InputError for files that cannot be read and for too few examples,
    MissingExtraError without scikit-learn, StorageError.
    """
    _check(options)
    sides = {name: _examples(name, options) for name in (GOOD, BAD)}
    both = sides[GOOD].keys() & sides[BAD].keys()
    for examples in sides.values():
        for key in both:
            del examples[key]
    texts = {name: _split(examples, options.held_out_fraction) for name, examples in sides.items()}
    for name, (learned, held_out) in texts.items():
        if len(held_out) < LEAST_HELD_OUT or not learned:
            found = f"{len(learned)} examples to learn from and {len(held_out)} held out"
            common = f" ({len(both)} stood on both sides, good and bad, and are not used)" if both else ""
            raise InputError(f"{name}: {found}{common}; at least {LEAST_HELD_OUT} are held out of each side: give more")
    weights, bias = _fit([texts[name][0] for name in (GOOD, BAD)], options)
    classifier = QualityClassifier(weights, bias, {})
    scores = [np.array([classifier.score(text) for text in texts[name][1]]) for name in (GOOD, BAD)]
    record = {
        "megadec": __version__,
        "options": to_dict(options) | {name: [path.name for path in getattr(options, name)] for name in (GOOD, BAD)},
        "learned": {name: len(learned) for name, (learned, _) in texts.items()},
        "in_both_and_left_out": len(both),
        "held_out": measure(*scores),
    }
    del record["options"]["output"], record["options"]["overwrite"]
    classifier = QualityClassifier(weights, bias, record)
    with whole_file(options.output) as file:
        file.write(to_bytes(classifier))
    log.info("wrote %s", options.output)
    return classifier


def measure(good_E: np.ndarray, bad_E: np.ndarray) -> dict[str, Any]:
    """Figures of scores of held-out examples: the area under the ROC curve, and at each threshold the precision (of
    those that pass, how many are good), the recall (of the good, how many pass) and how many of the bad are dropped,
    each with the ends of its 95 % interval (Wilson).
    """
    ranks = np.searchsorted(np.sort(bad_E), good_E, "left") + np.searchsorted(np.sort(bad_E), good_E, "right")
    rows = []
    for threshold in THRESHOLDS:
        kept_good, kept_bad = int((good_E >= threshold).sum()), int((bad_E >= threshold).sum())
        rows.append(
            {
                "threshold": threshold,
                "precision": share(kept_good, kept_good + kept_bad),
                "recall": share(kept_good, len(good_E)),
                "bad_dropped": share(len(bad_E) - kept_bad, len(bad_E)),
            }
        )
    area = float(ranks.mean() / 2 / len(bad_E))
    return {"good": len(good_E), "bad": len(bad_E), "area_under_roc": round(area, 5), "thresholds": rows}


def share(count: int, of: int) -> list[float] | None:
    """[count / of, the lower and the upper end of its 95 % interval (Wilson, 1927)]; None of nothing."""
    if not of:
        return None
    z, value = 1.959964, count / of
    middle = (value + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * sqrt(value * (1 - value) / of + z * z / (4 * of * of))
    return [round(part, 4) for part in (value, max(middle - half, 0.0), min(middle + half, 1.0))]


def render(record: Any) -> str:
    """The record's figures as a table for a terminal."""
    held_out, learned = record["held_out"], record["learned"]
    lines = [
        f"learned from {learned[GOOD]:,} good and {learned[BAD]:,} bad examples; "
        f"{record['in_both_and_left_out']:,} stood on both sides and were left out",
        f"measured on {held_out['good']:,} good and {held_out['bad']:,} bad ones that it did not learn from, "
        f"area under the ROC curve {held_out['area_under_roc']:.4f}",
        f"{'min_quality':>11} {'precision':>22} {'recall':>22} {'bad dropped':>22}   (95 % intervals)",
    ]
    for row in held_out["thresholds"]:
        cells = (_cell(row[name]) for name in ("precision", "recall", "bad_dropped"))
        lines.append(f"{row['threshold']:>11} " + " ".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def _cell(value: Sequence[float] | None) -> str:
    return "none passes" if value is None else f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def _check(options: TrainQualityOptions) -> None:
    if options.output.suffix != ".safetensors":
        raise ConfigError(f"output={options.output} does not end in .safetensors; that is what is written")
    if options.output.exists() and not options.overwrite:
        raise ConfigError(f"{options.output}: exists already; choose another place or give --overwrite")
    check_range(options, "", "held_out_fraction", above=0, below=1)
    check_range(options, "", "max_examples", least=2 * LEAST_HELD_OUT)
    check_range(options, "", "inverse_regularization", above=0)
    check_encoding(options.read.encoding)
    for name in (GOOD, BAD):
        if not getattr(options, name):
            raise ConfigError(f"{name}: no file was given")
        for path in getattr(options, name):
            if not path.exists():
                raise InputError(f"{path}: no such file or folder")
            _source_of(path, name, options)
    with needs_extra("scikit-learn", "quality"):
        import sklearn  # noqa: F401  # before hours of reading


def _source_of(path: Path, side: str, options: TrainQualityOptions) -> str:
    """The reader of a path. Raises ConfigError where neither an option nor the suffix says it."""
    asked = getattr(options, f"{side}_source")
    suffix = Path(path.stem).suffix if path.suffix.lower() in _COMPRESSED else path.suffix
    name = asked or SOURCE_OF_SUFFIX.get(suffix.lower(), "")
    if not name:
        raise ConfigError(f"{path}: its name does not say what it is; give --{side}_source")
    find_source(name)
    return "documents" if name == "parquet" and is_prepared(path, options.read) else name


def _examples(side: str, options: TrainQualityOptions) -> dict[bytes, str]:
    """Digest -> one piece of each text, the `max_examples` with the smallest keys, whatever the order of the files."""
    report = CorpusReport()
    found: dict[bytes, str] = {}
    keys: list[tuple[int, bytes]] = []  # a heap: the largest key, negated, on top
    seed = np.random.default_rng(options.seed).bytes(16)
    for text in progress(_texts(side, options, report), description=side, unit="doc"):
        digest = digest_of(text)
        key = int.from_bytes(digest, "big") ^ int.from_bytes(seed, "big")
        if digest in found or (len(keys) >= options.max_examples and key >= -keys[0][0]):
            continue
        parts = pieces_of(text)
        found[digest] = parts[key % len(parts)]
        heapq.heappush(keys, (-key, digest))
        if len(keys) > options.max_examples:
            del found[heapq.heappop(keys)[1]]
    for reason, count in sorted(report.dropped.items()):
        log.info("%s: %d texts were left out: %s", side, count, reason)
    return {digest: found[digest] for _, digest in sorted(keys, reverse=True)}


def _texts(side: str, options: TrainQualityOptions, report: CorpusReport) -> Iterator[str]:
    """The cleaned texts of one side's files, judged by no rules."""
    given = {item.name: getattr(options.read, item.name) for item in fields(ReadOptions)}
    for path in getattr(options, side):
        name = _source_of(path, side, options)
        prepare = PrepareOptions(source=name, input=(path,), filter=FilterOptions(rules="none"), **given)
        source = find_source(name)
        raw = (read_piece(piece, source.read, report, prepare) for piece in pieces(source.read, [path], prepare))
        for passed in judged(itertools.chain.from_iterable(raw), source, prepare, report):
            yield full_text(passed.document)


def _split(examples: dict[bytes, str], held_out_fraction: float) -> tuple[list[str], list[str]]:
    """Examples to learn from and held-out ones. Their order is that of a hash, so the last are as good as any."""
    texts = list(examples.values())
    place = len(texts) - round(held_out_fraction * len(texts))
    return texts[:place], texts[place:]


def _fit(sides: Sequence[Sequence[str]], options: TrainQualityOptions) -> tuple[np.ndarray, float]:
    """float32 [B] weights and the bias. Both sides weigh the same, however many examples they have."""
    from scipy.sparse import csr_matrix
    from sklearn.linear_model import LogisticRegression

    found = [features_of(text) for text in itertools.chain(*sides)]
    ends = np.cumsum([0, *(len(buckets) for buckets, _ in found)])
    buckets, values = (np.concatenate([one[part] for one in found]) for part in (0, 1))
    matrix = csr_matrix((values, buckets.astype(np.int32), ends), shape=(len(found), BUCKETS))
    true_E = np.repeat([1, 0], [len(side) for side in sides])
    model = LogisticRegression(C=options.inverse_regularization, class_weight="balanced", max_iter=2000)
    model.fit(matrix, true_E)
    return model.coef_[0].astype(np.float32), float(np.float32(model.intercept_[0]))
