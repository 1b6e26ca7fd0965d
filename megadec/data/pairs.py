"""Pairs of texts: line-aligned files in, token ids of sources and targets out, in memory.

Files are two whose lines belong together, or one of `source<TAB>target` lines, plain or compressed. A pair is held out
by a hash of its source. A million pairs are tokenized in about a minute.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, zip_longest
from pathlib import Path
from typing import Literal, Self

import numpy as np

from megadec.common.errors import ConfigError, InputError, check_range
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.sources.files import members, reading
from megadec.corpus.sources.reading import ReadOptions

Part = Literal["train", "held_out", "all"]
CHUNK_PAIRS = 10_000


@dataclass(frozen=True)
class PairOptions:
    """Which pairs, and how long they may be.

    source: the file of sources, or of `source<TAB>target` lines when there is no target. target: the file of targets.
    swap: read source and target the other way round. held_out_fraction: of the sources, chosen by hash.
    max_source_tokens, max_target_tokens: longer pairs are left out and counted; with `</s>`, which ends both.
    """

    source: str = ""
    target: str | None = None
    swap: bool = False
    held_out_fraction: float = 0.02
    max_source_tokens: int = 128
    max_target_tokens: int = 128

    def __post_init__(self) -> None:
        check_range(self, "data.", "held_out_fraction", least=0, below=1)
        check_range(self, "data.", "max_source_tokens", "max_target_tokens", least=2)  # a token and </s>

    def with_files(self, files: Sequence[str]) -> Self:
        """The same choice from other files: one with TABs, or one of sources and one of targets; these if none."""
        if len(files) > 2:
            raise ConfigError(f"{len(files)} files of pairs: give one with TABs, or one of sources and one of targets")
        return replace(self, source=files[0], target=files[1] if len(files) > 1 else None) if files else self


@dataclass
class PairCounts:
    """read: pairs in the files; kept: in the part that was asked for. The others by reason."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    source_too_long: int = 0
    target_too_long: int = 0
    other_part: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kept:,} of {self.read:,} pairs ({self.other_part:,} in the other part, {self.empty:,} with an empty"
            f" side, {self.source_too_long:,} with too long a source, {self.target_too_long:,} with too long a target)"
        )


@dataclass(frozen=True)
class Ragged:
    """Lists of ids end to end. values: uint16 or uint32; starts: int64 [lists + 1]."""

    values: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        found: np.ndarray = self.values[self.starts[number] : self.starts[number + 1]]
        return found

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]], vocabulary_size: int) -> Self:
        """`lists` joined."""
        starts = np.concatenate([[0], np.cumsum([len(ids) for ids in lists], dtype=np.int64)])
        dtype = np.uint16 if vocabulary_size <= 2**16 else np.uint32
        values = np.fromiter((i for ids in lists for i in ids), dtype=dtype, count=int(starts[-1]))
        return cls(values, starts)


@dataclass(frozen=True)
class PairSet:
    """Pairs ready for batches: sources end with `</s>`; targets have neither `<s>` nor `</s>` yet.

    sha256: of the ids, so of files, tokenizer, limits and part together.
    """

    sources: Ragged
    targets: Ragged
    bos_id: int
    eos_id: int
    counts: PairCounts = field(compare=False)

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def sha256(self) -> str:
        """Identifies the contents."""
        digest = hashlib.sha256()
        for ragged in (self.sources, self.targets):
            digest.update(ragged.starts.tobytes())
            digest.update(ragged.values.tobytes())
        return digest.hexdigest()


def open_pairs(options: PairOptions, tokenizer: Tokenizer, part: Part) -> PairSet:
    """Read, choose, tokenize and measure.

    Raises ConfigError where no file is named or no pair is left, InputError (file and line) for what cannot be read.
    """
    sources: list[list[int]] = []
    targets: list[list[int]] = []
    counts = PairCounts()
    chosen = choose_pairs(options, part, counts)
    while chunk := list(islice(chosen, CHUNK_PAIRS)):
        both = (tokenizer.encode_many(texts) for texts in zip(*chunk, strict=True))
        for source_ids, target_ids in zip(*both, strict=True):
            if len(source_ids) >= options.max_source_tokens:
                counts.source_too_long += 1
            elif len(target_ids) >= options.max_target_tokens:
                counts.target_too_long += 1
            else:
                sources.append([*source_ids, tokenizer.eos_id])
                targets.append(target_ids)
    counts.kept = len(sources)
    if not sources:
        raise ConfigError(f"data.source={options.source}: no pair is left for the part {part!r}: {counts}")
    size = tokenizer.vocabulary_size
    return PairSet(Ragged.of(sources, size), Ragged.of(targets, size), tokenizer.bos_id, tokenizer.eos_id, counts)


def choose_pairs(options: PairOptions, part: Part, counts: PairCounts | None = None) -> Iterator[tuple[str, str]]:
    """The pairs of a part as text, in the order of the files; `counts` is told of those left out."""
    counts = PairCounts() if counts is None else counts
    for source, target in read_pairs(options):
        counts.read += 1
        if not source or not target:
            counts.empty += 1
        elif part != "all" and is_held_out(digest_of(source), options.held_out_fraction) != (part == "held_out"):
            counts.other_part += 1
        else:
            yield source, target


def read_pairs(options: PairOptions) -> Iterator[tuple[str, str]]:
    """Source and target of every line, without blanks around them, as the options turn them.

    Raises ConfigError where no file is named, InputError naming file and line: no TAB, no UTF-8, or files of different
    length.
    """
    if not options.source:
        raise ConfigError("data.source names no file: give a file of `source<TAB>target` lines, or data.target too")
    pairs = _of_columns(options.source) if options.target is None else _of_files(options.source, options.target)
    for first, second in pairs:
        source, target = (second, first) if options.swap else (first, second)
        yield source.strip(), target.strip()


def _of_columns(name: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(name), start=1):
        source, tab, rest = line.partition("\t")
        if not tab and line.strip():
            raise InputError(f"{name}, line {number}: {line[:40]!r} has no TAB; a pair is source<TAB>target")
        yield source, rest.partition("\t")[0]


def _of_files(source: str, target: str) -> Iterator[tuple[str, str]]:
    for number, (line, other) in enumerate(zip_longest(_lines(source), _lines(target)), start=1):
        if line is None or other is None:
            short, long = (source, target) if line is None else (target, source)
            raise InputError(f"{short} ends before line {number}, which {long} has; their lines belong together")
        yield line, other


def _lines(name: str) -> Iterator[str]:
    """Lines without their ends. A byte order mark at the start is no part of the text."""
    for member in members(Path(name), (".txt", ".tsv"), ReadOptions()):
        with reading(member.name):
            for number, raw in enumerate(member.file, start=1):
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    found = " ".join(f"{byte:02x}" for byte in raw[error.start : error.start + 4])
                    raise InputError(f"{member.name}, line {number}: {found} is not UTF-8 ({error.reason})") from error
                yield line.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
