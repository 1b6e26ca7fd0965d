"""Learns a vocabulary from documents: chooses the text, cuts it into segments, and trains sentencepiece.

The chosen text is held in memory, tens of megabytes for 32,000 pieces; the files are read twice instead. A piece may
reach over punctuation (`，但是`, `。\n`), worth a tenth of the tokens in prose, but not over a newline.
"""

import io
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece

from megadec.common.errors import ConfigError, InputError, check_range, suggest
from megadec.common.log import logger, progress
from megadec.corpus.clean.variant import to_variant
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document, full_text, read_documents
from megadec.corpus.parallel import chunks_of, map_in_order

log = logger(__name__)

Kind = tuple[str, str, bool]
"""Source, variant, whether held out."""
BYTE_PIECES, SPECIAL_PIECES = 256, 3
LONGEST_PIECE_CHARACTERS = 16
# Converted text brings the other script's words; of its characters those that are this many times rarer stay out.
CONVERTED_REST = 6
# sentencepiece writes a blank so.
BLANK = "\u2581"
# sentencepiece strips newlines at the end of what it is given, and no piece reaches over the beginning of a blank.
SEGMENT_END = " "
# Always single pieces, so that code, tables and paragraphs never need bytes.
ALWAYS = frozenset(map(chr, range(0x21, 0x7F))) | {BLANK, "\n"}
_MILLIONS = {"": 1, "K": 1_000, "M": 1_000_000}
_PORTION = re.compile(
    r"(?P<source>[^/>=@]+)(?:/(?P<variant>[\w-]+))?(?:>(?P<target>[\w-]+))?=(?P<weight>\d+)(?:@(?P<size>\d+)(?P<unit>[KM]?))?"
)
_LINES = re.compile(r"[^\n]*\n+|[^\n]+")
_SENTENCE_END = re.compile(r"[。！？；][”’」』）]*|[.!?;] ")
_PUNCTUATION = "。！？；，、：“”‘’「」『』（）《》〈〉【】…—"
_BETWEEN_PUNCTUATION = re.compile(f"[^{_PUNCTUATION}]+|[{_PUNCTUATION}]+")


@dataclass(frozen=True)
class VocabularyOptions:
    """How a vocabulary is learned.

    Attributes:
        input: files of documents (.parquet).
        vocab_size: pieces in all, with `<unk>`, `<s>`, `</s>` and the 256 byte pieces.
        sample: `SOURCE=WEIGHT`, `SOURCE/VARIANT>TARGET=WEIGHT@CHARACTERS`: how often a source's text counts, of which
            variant, into which it is converted first, and how much of it at most; `*` stands for any letters in SOURCE.
            The first that fits a document decides for its text as it is; conversions come on top. Others count once.
        characters_per_source: text taken of one source, unless `sample` says otherwise.
        held_out_fraction: documents that are not learned from, by hash of their text, as in tools/prepare.py.
        character_coverage: characters become pieces until they make up this share of each source's text.
        max_piece_characters: the longest piece.
        pieces_cross_punctuation: whether a piece may hold Chinese punctuation and letters.
        segment_characters: the longest stretch of text that is looked at as a whole.
        workers: processes that read and hash.
    """

    input: tuple[Path, ...]
    vocab_size: int = 32_000
    sample: tuple[str, ...] = ()
    characters_per_source: int = 10_000_000
    held_out_fraction: float = 0.1
    character_coverage: float = 0.9997
    max_piece_characters: int = 6
    pieces_cross_punctuation: bool = True
    segment_characters: int = 1_000
    workers: int = 2


@dataclass
class Portion:
    """One entry of `sample`, read, and the text of it: what was there and what was taken.

    `limit` is in characters; None: the options' own.
    """

    source: str
    variant: str = ""
    target: str = ""
    weight: int = 1
    limit: int | None = None
    found_characters: int = 0
    texts: list[str] = field(default_factory=list)

    def fits(self, source: str, variant: str) -> bool:
        return fnmatchcase(source, self.source) and self.variant in ("", variant)


def learn_vocabulary(options: VocabularyOptions) -> tuple[bytes, dict[str, Any]]:
    """Train a byte-pair model with byte fallback; returns the model file's bytes and the record of what it saw.

    Nothing is normalized, blanks and newlines are kept, digits stay single: decode(encode(text)) == text for any text
    without U+2581 and U+0000. Raises ConfigError for options that do not fit and for text that gives fewer pieces than
    asked for, InputError for files.
    """
    asked = [read_portion(text) for text in options.sample]
    check_options(options)
    portions = choose_texts(options, asked)
    characters = choose_characters(portions, options.character_coverage)
    room = options.vocab_size - SPECIAL_PIECES - BYTE_PIECES
    if len(characters) >= room:
        enough = -(-len(characters) * 3 // 2000) * 1000
        raise ConfigError(
            f"vocab_size={options.vocab_size}: {len(characters)} single characters leave no room for pieces; give"
            f" {enough} or more, or lower character_coverage={options.character_coverage}"
        )
    counts: Counter[str] = Counter()
    began = time.monotonic()
    segments = _known_parts(_segments(portions, options, counts), characters)
    model = train_pieces(segments, characters, options)
    seconds = round(time.monotonic() - began, 1)
    log.info("%d pieces from %.1f M characters in %.0f s", options.vocab_size, counts["characters"] / 1e6, seconds)
    record = {
        "shares": [_record_of(portion) for portion in portions],
        "segments": dict(counts),
        "single_characters": len(characters),
        "training_seconds": seconds,
    }
    return model, record


def read_portion(text: str) -> Portion:
    """`wiki/zh-Hans>zh-TW=3@2M` as a Portion. Raises ConfigError."""
    match = _PORTION.fullmatch(text)
    if not match:
        raise ConfigError(f"sample={text!r}: not SOURCE=WEIGHT or SOURCE/VARIANT>TARGET=WEIGHT@CHARACTERS (3M, 500K)")
    source, variant, target, weight, size, unit = match.groups(default="")
    return Portion(source, variant, target, int(weight), int(size) * _MILLIONS[unit] if size else None)


def check_options(options: VocabularyOptions) -> None:
    """Raise ConfigError for a value out of its range and InputError for a file that is missing."""
    if not options.input:
        raise ConfigError("input: no file was given")
    for path in options.input:
        if not path.is_file():
            raise InputError(f"{path}: no such file; files of documents come from tools/prepare.py --documents")
    check_range(options, "", "vocab_size", least=512)
    check_range(options, "", "characters_per_source", "workers", least=1)
    check_range(options, "", "held_out_fraction", least=0, most=0.99)
    check_range(options, "", "character_coverage", least=0.5, most=1)
    check_range(options, "", "max_piece_characters", least=1, most=LONGEST_PIECE_CHARACTERS)
    check_range(options, "", "segment_characters", least=16)


def choose_texts(options: VocabularyOptions, asked: Sequence[Portion]) -> list[Portion]:
    """Read the files twice: to see what is there, and to take each portion's share of it, spread over all of it."""
    documents = progress(read_documents(options.input), description="look at documents", unit="doc")
    work = partial(_survey, options.held_out_fraction)
    surveyed = list(chain.from_iterable(map_in_order(work, chunks_of(documents), options.workers)))
    kinds = {kind for kind, _, _ in surveyed}
    known = sorted({source for source, _, _ in kinds})
    portions = [*asked, *map(Portion, known)]
    portions_of = {kind: _portions_of(*kind, portions) for kind in kinds}
    for kind, characters, _ in surveyed:
        for portion in portions_of[kind]:
            portion.found_characters += characters
    _check_found(asked, known)
    for (kind, _, chance), document in zip(surveyed, read_documents(options.input), strict=True):
        for portion in portions_of[kind]:
            limit = portion.limit or options.characters_per_source
            if portion.weight and chance * portion.found_characters < limit:
                portion.texts.append(to_variant(full_text(document), document.variant, portion.target))
    taken = [portion for portion in portions if portion.texts]
    if not taken:
        raise ConfigError(f"no text to learn from: {len(surveyed)} documents read, sample leaves none of them")
    return taken


def _survey(held_out_fraction: float, documents: list[Document]) -> list[tuple[Kind, int, float]]:
    """Each document's kind, characters, and the chance from 0 to 1 that decides whether it is taken; in any process."""
    found = []
    for document in documents:
        text = full_text(document)
        digest = digest_of(text)
        kind = (document.source, document.variant, is_held_out(digest, held_out_fraction))
        found.append((kind, len(text), int.from_bytes(digest[8:16], "big") / 2.0**64))
    return found


def _portions_of(source: str, variant: str, held_out: bool, portions: Sequence[Portion]) -> list[Portion]:
    """Where the text of such documents goes: the first portion that takes it as it is, and all that convert it."""
    fitting = [portion for portion in portions if portion.fits(source, variant) and not held_out]
    plain = [portion for portion in fitting if not portion.target]
    return plain[:1] + [portion for portion in fitting if portion.target]


def _check_found(asked: Sequence[Portion], known: Sequence[str]) -> None:
    for portion in asked:
        name = portion.source
        if portion.found_characters or not portion.weight:
            continue
        if any(fnmatchcase(source, name) for source in known):
            found = "none of its documents is of that variant or to be learned"
            raise ConfigError(f"sample={name}/{portion.variant}: {found}")
        raise ConfigError(f"sample={name}: no such documents; there are {', '.join(known)}{suggest(name, known)}")


def choose_characters(portions: Iterable[Portion], coverage: float) -> set[str]:
    """For each portion its most frequent characters, as many as make up `coverage` of it; and those that always are."""
    chosen = set(ALWAYS)
    for portion in portions:
        counts = Counter(chain.from_iterable(portion.texts))
        allowed = (CONVERTED_REST if portion.target else 1) * (1 - coverage) * counts.total()
        for character, count in sorted(counts.items(), key=lambda item: (item[1], item[0])):
            allowed -= count
            if allowed < 0:
                chosen.add(character)
    return chosen - {" ", "\0"}


def segments_of(text: str, longest: int, cross_punctuation: bool, counts: Counter[str]) -> Iterator[str]:
    """Cut a text where no piece shall reach over: after newlines, and lines over `longest` characters at sentence ends.

    Joined, the segments are the text. `counts` learns how many lines were cut, and how often inside a sentence.
    """
    for line in _LINES.findall(text):
        if len(line) > longest:
            counts["long_lines_cut"] += 1
        for part in _cut(line, longest, counts):
            yield from [part] if cross_punctuation else _BETWEEN_PUNCTUATION.findall(part)


def train_pieces(segments: Iterator[str], characters: set[str], options: VocabularyOptions) -> bytes:
    """Run sentencepiece over the segments. Raises ConfigError when the text has too few different pieces."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=segments,
            model_writer=model,
            model_type="bpe",
            vocab_size=options.vocab_size,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            split_by_unicode_script=False,
            max_sentencepiece_length=options.max_piece_characters,
            # The characters are chosen before, source by source: the segments hold no others.
            required_chars="".join(sorted(characters)),
            character_coverage=1.0,
            # In bytes; longer ones would be dropped without a word, and our segments are shorter.
            max_sentence_length=8 * max(options.segment_characters, 1024),
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        # sentencepiece gives up only when no pair of pieces is left to join.
        reason = " ".join(str(error).split())
        raise ConfigError(f"vocab_size={options.vocab_size}: the text is too little for it ({reason})") from error
    return model.getvalue()


def _known_parts(segments: Iterator[str], characters: set[str]) -> Iterator[str]:
    """The segments without characters that become no piece: cut there, since no piece can reach over one."""
    known = re.compile(f"[{re.escape(''.join(sorted(characters - {BLANK})))} ]+")
    for segment in segments:
        for part in known.findall(segment):
            yield part + SEGMENT_END


def _cut(line: str, longest: int, counts: Counter[str]) -> Iterator[str]:
    while len(line) > longest:
        ends = [match.end() for match in _SENTENCE_END.finditer(line, 0, longest)]
        if not ends:
            counts["cut_inside_a_sentence"] += 1
        end = ends[-1] if ends else longest
        yield line[:end]
        line = line[end:]
    yield line


def _segments(portions: Sequence[Portion], options: VocabularyOptions, counts: Counter[str]) -> Iterator[str]:
    for portion in portions:
        for text in progress(portion.texts, description=f"learn from {portion.source}", unit="doc"):
            passed = list(segments_of(text, options.segment_characters, options.pieces_cross_punctuation, counts))
            counts["segments"] += len(passed) * portion.weight
            counts["characters"] += len(text) * portion.weight
            yield from passed * portion.weight


def _record_of(portion: Portion) -> dict[str, Any]:
    return {
        "source": portion.source,
        "variant": portion.variant,
        "converted_to": portion.target,
        "weight": portion.weight,
        "documents": len(portion.texts),
        "characters": sum(map(len, portion.texts)),
        "characters_found": portion.found_characters,
    }
