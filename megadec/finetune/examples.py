"""Labelled texts -> ids: what a classifier learns from and is measured on.

Reads files that the corpus readers know (THUCNews folders, `title<TAB>label` lists, JSON lines, CSV, Parquet). A
malformed line, an empty text and an unknown label are errors and not drops, because a label that is lost without a word
is a figure that is wrong.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count, islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from megadec.common.errors import ConfigError, InputError, check_range, suggest
from megadec.common.log import logger
from megadec.common.ranks import is_first
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document, full_text
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import find_source
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.thucnews import class_names, without_marks
from megadec.export.read.inputs import TEXT, Cut, Form
from megadec.finetune.augment import AugmentOptions, augmented
from megadec.finetune.soft_labels import draw_labels, read_soft

ENCODED_AT_A_TIME = 4096
SHOWN_LABELS = 12
SOURCE_OF_SUFFIX = {
    "": "thucnews", ".txt": "thucnews", ".jsonl": "jsonl", ".json": "jsonl", ".ndjson": "jsonl",
    ".csv": "comments", ".tsv": "comments", ".parquet": "parquet",
}  # fmt: skip

Encode = Callable[[Sequence[str]], list[list[int]]]

log = logger(__name__)


class LabelledText(NamedTuple):
    """A text, its label's name, and where it stands, for messages."""

    text: str
    label: str
    place: str


@dataclass(frozen=True)
class LabelledSet:
    """Texts as ids. tokens int32 [all tokens], starts int64 [texts + 1]: text n is tokens[starts[n] : starts[n + 1]].

    labels: int64 [texts], numbers into `names`. cut: how many texts were too long. path: where they come from.
    """

    path: Path
    names: tuple[str, ...]
    tokens: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    cut: int = 0

    @property
    def texts(self) -> int:
        """How many there are."""
        return len(self.labels)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [texts]: tokens of each."""
        return np.diff(self.starts)

    @cached_property
    def counts(self) -> np.ndarray:
        """int64 [labels]: texts of each label."""
        return np.bincount(self.labels, minlength=len(self.names))

    def ids(self, text: int) -> np.ndarray:
        """int32: the ids of one text."""
        ids: np.ndarray = self.tokens[self.starts[text] : self.starts[text + 1]]
        return ids

    @cached_property
    def sha256(self) -> str:
        """The hash of every id and label: two sets that train alike are equal in it."""
        digest = hashlib.sha256("\0".join(self.names).encode())
        for array in (self.tokens, self.starts, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class LabelledOptions:
    """Where labelled texts come from.

    train, dev: files or folders.
    soft: texts with a probability for each label, as tools/label.py writes them, to train on too; each variant of such
        a text draws its label from the probabilities.
    source: a reader's name (thucnews, jsonl, comments, parquet, ...); empty: by the file's suffix.
    read: encoding and column names.
    template: what stands around a text, with `{text}` in its place.
    cut: whether the head or the tail of a text that is too long is kept.
    sequence_length: longer texts are cut, shorter ones share a sequence.
    variants: the training set holds every text this many times: once as it is, then tokenized in other ways and with
        tokens dropped, so that no single piece decides. An epoch is a pass over all of them.
    bpe_dropout: of a variant, the probability of a cut between two characters that no piece then crosses.
    token_dropout: of a variant, the probability that a token is dropped.
    augment: changed copies of the training texts, for small sets; each variant holds them.
    """

    train: str = ""
    dev: str = ""
    soft: str = ""
    source: str = ""
    read: ReadOptions = field(default_factory=ReadOptions)
    template: str = TEXT
    cut: Cut = "head"
    sequence_length: int = 256
    variants: int = 1
    bpe_dropout: float = 0.1
    token_dropout: float = 0.0
    augment: AugmentOptions = field(default_factory=AugmentOptions)

    def __post_init__(self) -> None:
        check_range(self, "data.", "variants", least=1)
        check_range(self, "data.", "bpe_dropout", "token_dropout", least=0, below=1)

    @property
    def form(self) -> Form:
        """How its texts become ids."""
        return Form(self.template, self.sequence_length, self.cut)


def read_labelled(path: Path, options: LabelledOptions) -> Iterator[LabelledText]:
    """The texts at `path` with their labels.

    Raises InputError naming file and line for a malformed line, an empty text, and a text without a label; ConfigError
    for a source that does not exist.
    """
    report = CorpusReport()
    for document in find_source(source_of(path, options.source)).read(path, report, options.read):
        _check_whole(path, report)
        place, text = _place(path, document), without_marks(full_text(document)).strip()
        if not text:
            raise InputError(f"{place}: the text is empty; every line of a labelled set has a text")
        if not document.label.strip():
            raise InputError(f"{place}: {text[:20]!r} has no label; name its column with data.read.label_field")
        yield LabelledText(text, document.label.strip(), place)
    _check_whole(path, report)


def with_copies(texts: Sequence[LabelledText], options: AugmentOptions, seed: int) -> list[LabelledText]:
    """Each text, followed by its changed copies. Raises as `augmented` does."""
    copies, counts = augmented([(one.text, one.label) for one in texts], options, seed)
    if is_first():
        done = ", ".join(f"{count:,} {name}" for name, count in counts.items())
        log.info("%s texts, augmented: %s", f"{len(texts):,}", done)
    found = []
    for one, some in zip(texts, copies, strict=True):
        found += [one, *(one._replace(text=text, place=f"{one.place}, copy {n}") for n, text in enumerate(some, 1))]
    return found


def read_sets(options: LabelledOptions, tokenizer: Tokenizer, seed: int = 0) -> tuple[LabelledSet, LabelledSet | None]:
    """The training set and the held-out one (None where none is named), with one list of labels.

    seed: draws the copies, the variants, and the labels of soft texts. The labels are those of class.txt in its order,
    else those of the training set, sorted. Raises ConfigError and InputError: see `read_labelled`, `augmented` and
    `read_soft`; also for a label that is not in the list, fewer than two labels, no text at all, and a held-out set
    inside the training set.
    """
    if not options.train:
        raise ConfigError("data.train names no labelled texts: give a file or folder such as data/titles/train.txt")
    train_path = Path(options.train)
    texts = None
    if options.augment.copies:
        texts = with_copies(list(read_labelled(train_path, options)), options.augment, seed)
    train = read_set(train_path, options, tokenizer, _class_list(train_path, options), texts=texts)
    if all(name.isdecimal() for name in train.names) and is_first():
        log.warning("%s: the labels have no names but %s ...; a class.txt beside it gives them, a line for each",
                    train_path, ", ".join(train.names[:3]))  # fmt: skip
    if len(train.names) < 2:
        raise InputError(f"{train_path} has the label {train.names[0]!r} only; a classifier needs at least two")
    for name, times in zip(train.names, train.counts.tolist(), strict=True):
        if not times and is_first():
            log.warning("%s: no text has the label %r, so it will not be learned", train_path, name)
    soft = read_soft(Path(options.soft), train.names) if options.soft else None
    sets = [train]
    for number in range(options.variants):
        encode = _encode_variant(tokenizer, options, seed, number) if number else tokenizer.encode_many
        if number:
            sets.append(read_set(train_path, options, tokenizer, train.names, encode, texts))
        if soft is not None:
            soft_texts, probabilities = soft
            labels = draw_labels(probabilities, zlib.crc32(f"{seed} {number}".encode())).tolist()
            pairs = zip(soft_texts, labels, strict=True)
            sets.append(_encoded(Path(options.soft), pairs, train.names, options.form, tokenizer.prefix_ids, encode))
    learned = joined(sets)
    if not options.dev:
        return learned, None
    dev_path = Path(options.dev)
    if dev_path.resolve() == train_path.resolve() or train_path.resolve() in dev_path.resolve().parents:
        raise ConfigError(f"data.dev={dev_path} is within data.train={train_path}; what is learned measures nothing")
    dev = read_set(dev_path, options, tokenizer, train.names)
    if is_first() and (shared := _texts_in_both(learned, dev)):
        log.warning("%s: %d of %d texts are learned from too; they measure memory", dev_path, shared, dev.texts)
    return learned, dev


def _encode_variant(tokenizer: Tokenizer, options: LabelledOptions, seed: int, number: int) -> Encode:
    """Texts -> ids with pieces cut finer and tokens left out: other ones for each number and each part of a set, the
    same whenever the run starts. At least one token of a text stays."""
    parts = count()

    def encode(texts: Sequence[str]) -> list[list[int]]:
        part_seed = zlib.crc32(f"{seed} {number} {next(parts)}".encode())
        chance = np.random.default_rng(part_seed)
        encoded = tokenizer.encode_with_dropout(texts, options.bpe_dropout, part_seed)
        kept = [chance.random(len(ids)) >= options.token_dropout for ids in encoded]
        return [np.asarray(ids)[stays].tolist() or ids[:1] for ids, stays in zip(encoded, kept, strict=True)]

    return encode


def _encoded(
    path: Path,
    texts: Iterable[tuple[str, int]],
    names: Sequence[str],
    form: Form,
    prefix_ids: Sequence[int],
    encode: Encode,
) -> LabelledSet:
    """Texts with the numbers of their labels as a set; what is too long is cut and counted."""
    ids, labels, cut, texts = [], list[int](), 0, iter(texts)
    while some := list(islice(texts, ENCODED_AT_A_TIME)):
        for encoded in encode([form.put(text) for text, _ in some]):
            ids.append(np.asarray(form.ids(prefix_ids, encoded), dtype=np.int32))
            cut += len(ids[-1]) < len(prefix_ids) + len(encoded)
        labels += [label for _, label in some]
    if not ids:
        raise InputError(f"{path} has no labelled text at all")
    if cut:
        log.info("%s: %d of %d texts are longer than %d tokens and were cut (%s kept)",
                 path, cut, len(ids), form.longest_tokens, form.cut)  # fmt: skip
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int64)
    return LabelledSet(path, tuple(names), np.concatenate(ids), starts, np.asarray(labels, dtype=np.int64), cut)


def joined(sets: Sequence[LabelledSet]) -> LabelledSet:
    """The texts of several sets of the same labels, one set behind the other."""
    starts = np.concatenate([[0], np.cumsum(np.concatenate([one.lengths for one in sets]))])
    tokens, labels = (np.concatenate([getattr(one, name) for one in sets]) for name in ("tokens", "labels"))
    return replace(sets[0], tokens=tokens, starts=starts, labels=labels, cut=sum(one.cut for one in sets))


def read_set(
    path: Path,
    options: LabelledOptions,
    tokenizer: Tokenizer,
    names: Sequence[str] | None,
    encode: Encode | None = None,
    texts: Iterable[LabelledText] | None = None,
) -> LabelledSet:
    """One set. names: the labels that there may be; None takes what is found, sorted. texts: in place of those that
    `path` holds. Raises as `read_sets` does."""
    numbers = {name: number for number, name in enumerate(names or ())}

    def numbered() -> Iterator[tuple[str, int]]:
        for one in read_labelled(path, options) if texts is None else texts:
            if names is None:
                numbers.setdefault(one.label, len(numbers))
            yield one.text, number_of(one, numbers)

    found = _encoded(path, numbered(), names or (), options.form, tokenizer.prefix_ids, encode or tokenizer.encode_many)
    final = tuple(names or sorted(numbers, key=_by_number))
    places = np.asarray([final.index(name) for name in numbers], dtype=np.int64)
    return replace(found, names=final, labels=places[found.labels])


def number_of(one: LabelledText, numbers: Mapping[str, int]) -> int:
    """The number of a text's label. Raises InputError, naming the text's place, for one that is not among `numbers`."""
    if one.label not in numbers:
        raise InputError(f"{one.place}: {_unknown(one.label, tuple(numbers))}")
    return numbers[one.label]


def label_weights(train: LabelledSet, kind: str, given: dict[str, float]) -> list[float]:
    """The loss weight of each label.

    kind: `none` is 1 for all; `balanced` is texts / (labels x texts of the label), so that every label counts the same
    and the mean over the texts is 1. given: weights by name, in place of those. Raises ConfigError.
    """
    for name, weight in given.items():
        if name not in train.names:
            raise ConfigError(f"loss.weights: {_unknown(name, train.names)}")
        if not weight > 0:
            raise ConfigError(f"loss.weights.{name}={weight} is not above 0")
    counts = train.counts.tolist()
    present = sum(count > 0 for count in counts)
    is_balanced = kind == "balanced"
    weights = [train.texts / (present * count) if is_balanced and count else 1.0 for count in counts]
    return [given.get(name, weight) for name, weight in zip(train.names, weights, strict=True)]


def source_of(path: Path, given: str = "") -> str:
    """The name of the reader for `path`: `given`, or what its suffix says."""
    if given:
        return given
    suffixes = [suffix for suffix in path.suffixes if suffix.lower() in SOURCE_OF_SUFFIX]
    return SOURCE_OF_SUFFIX[suffixes[-1].lower()] if suffixes else "thucnews"


def _class_list(path: Path, options: LabelledOptions) -> Sequence[str] | None:
    """The names of class.txt in its order, or None where there is none."""
    if source_of(path, options.source) != "thucnews" and not options.read.class_file:
        return None
    names = class_names(path, CorpusReport(), options.read)
    twice = [name for name, after in pairwise(sorted(names)) if name == after]
    if twice:
        raise InputError(f"the class list of {path} has {twice[0]!r} twice")
    return names or None


def _check_whole(path: Path, report: CorpusReport) -> None:
    for reason, samples in report.samples.items():
        raise InputError(f"{path}: {reason.replace('_', ' ')}: {samples[0]}; a line of a labelled set is not dropped")


def _place(path: Path, document: Document) -> str:
    """`FILE: line N` where the reader counts lines or rows, else the file and the document's own id."""
    stem, colon, number = document.id.rpartition(":")
    if colon and number.isdecimal():
        return f"{path}: line {number}" if path.is_file() else f"{path}: {stem}, line {number}"
    return f"{path}: {document.id}"


def _by_number(name: str) -> tuple[bool, int, str]:
    return (not name.isdecimal(), int(name) if name.isdecimal() else 0, name)


def _unknown(label: str, names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN_LABELS]) + (", ..." if len(names) > SHOWN_LABELS else "")
    return f"the label {label!r} is not one of the {len(names)}{suggest(label, names)}: {shown}"


def _texts_in_both(train: LabelledSet, dev: LabelledSet) -> int:
    known = {train.ids(text).tobytes() for text in range(train.texts)}
    return sum(dev.ids(text).tobytes() in known for text in range(dev.texts))
