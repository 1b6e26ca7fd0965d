"""Learns a vocabulary from chosen text: cuts it into segments, and trains sentencepiece on them.

sentencepiece holds all of the text in memory, so the text is bounded (sample.py). A piece may reach over punctuation
(`，但是`, `。\n`), worth a tenth of the tokens in prose, but not over a newline.
"""

import io
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import sentencepiece

from megadec.common.errors import ConfigError, InputError, check_range
from megadec.common.log import logger, progress
from megadec.corpus.vocabulary.sample import Portion, choose_texts, read_portion

log = logger(__name__)

ModelKind = Literal["bpe", "unigram"]

SMALLEST_SIZE = 512
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
_LINES = re.compile(r"[^\n]*\n+|[^\n]+")
_SENTENCE_END = re.compile(r"[。！？；][”’」』）]*|[.!?;] ")
_PUNCTUATION = "。！？；，、：“”‘’「」『』（）《》〈〉【】…—"
_BETWEEN_PUNCTUATION = re.compile(f"[^{_PUNCTUATION}]+|[{_PUNCTUATION}]+")


@dataclass(frozen=True)
class VocabularyOptions:
    """How a vocabulary is learned.

    Attributes:
        input: files of documents (.parquet); what `prepare` writes beside them is left out.
        vocab_size: pieces in all, with `<unk>`, `<s>`, `</s>` and the 256 byte pieces.
        model: `bpe` joins the most frequent pairs; `unigram` takes pieces away that matter least.
        sample: `SOURCE=WEIGHT`, `SOURCE/VARIANT>TARGET=WEIGHT@CHARACTERS`: how often a source's text counts, of which
            variant, into which it is converted first, and how much of it at most; `*` stands for any letters in SOURCE.
            The first that fits a document decides for its text as it is; conversions come on top. Others count once.
        characters_per_source: text taken of one source, unless `sample` says otherwise; it bounds the memory, about 2
            bytes a character while text is chosen, and about 120 of all that was chosen while it is learned.
        held_out_fraction: documents that are not learned from, by hash of their text, as in tools/prepare.py.
        character_coverage: characters become pieces until they make up this share of each source's text.
        max_piece_characters: the longest piece.
        pieces_cross_punctuation: whether a piece may hold Chinese punctuation and letters.
        segment_characters: the longest stretch of text that is looked at as a whole.
        workers: processes that read and hash.
    """

    input: tuple[Path, ...]
    vocab_size: int = 32_000
    model: ModelKind = "bpe"
    sample: tuple[str, ...] = ()
    characters_per_source: int = 10_000_000
    held_out_fraction: float = 0.1
    character_coverage: float = 0.9997
    max_piece_characters: int = 6
    pieces_cross_punctuation: bool = True
    segment_characters: int = 1_000
    workers: int = 2


def learn_vocabulary(options: VocabularyOptions) -> tuple[bytes, dict[str, Any]]:
    """Choose text and learn from it; returns the model file's bytes and the record of what it saw.

    Raises as `choose_sample` and `learn_from` do.
    """
    return learn_from(choose_sample(options), options)


def choose_sample(options: VocabularyOptions) -> list[Portion]:
    """The text that `options` ask for. Raises ConfigError for options that do not fit, InputError for files."""
    asked = [read_portion(text) for text in options.sample]
    check_options(options)
    limit, fraction = options.characters_per_source, options.held_out_fraction
    return choose_texts(options.input, asked, held_out_fraction=fraction, limit=limit, workers=options.workers)


def learn_from(portions: Sequence[Portion], options: VocabularyOptions) -> tuple[bytes, dict[str, Any]]:
    """Train a model with byte fallback; returns the model file's bytes and the record of what it saw.

    Nothing is normalized, blanks and newlines are kept, digits stay single: decode(encode(text)) == text for any text
    without U+2581 and U+0000. Raises ConfigError for text that gives fewer pieces than asked for.
    """
    characters = choose_characters(portions, options.character_coverage)
    if len(characters) >= room_of(options):
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
    millions = counts["characters"] / 1e6
    log.info("%d pieces (%s) from %.1f M characters in %.0f s", options.vocab_size, options.model, millions, seconds)
    record = {
        "shares": [_record_of(portion) for portion in portions],
        "segments": dict(counts),
        "single_characters": len(characters),
        "training_seconds": seconds,
    }
    return model, record


def room_of(options: VocabularyOptions) -> int:
    """How many pieces may be learned, beside the special ones and those of bytes."""
    return options.vocab_size - SPECIAL_PIECES - BYTE_PIECES


def check_options(options: VocabularyOptions) -> None:
    """Raise ConfigError for a value out of its range and InputError for a file that is missing."""
    if not options.input:
        raise ConfigError("input: no file was given")
    for path in options.input:
        if not path.is_file():
            raise InputError(f"{path}: no such file; files of documents come from tools/prepare.py --documents")
    check_range(options, "", "vocab_size", least=SMALLEST_SIZE)
    check_range(options, "", "characters_per_source", "workers", least=1)
    check_range(options, "", "held_out_fraction", least=0, most=0.99)
    check_range(options, "", "character_coverage", least=0.5, most=1)
    check_range(options, "", "max_piece_characters", least=1, most=LONGEST_PIECE_CHARACTERS)
    check_range(options, "", "segment_characters", least=16)


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
            model_type=options.model,
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
