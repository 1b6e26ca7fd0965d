"""Quality rules for Chinese text: a document passes, or has a reason.

The rules are those of Gopher (Rae et al. 2021, appendix A) and RefinedWeb (Penedo et al. 2023, section 3), recounted in
characters, so that no segmenter is needed. They look at the first 20,000 characters of a document.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from megadec.common.errors import ConfigError, check_choice, check_range
from megadec.corpus.quality.boilerplate import is_boilerplate
from megadec.corpus.quality.characters import HAN, KINDS, SIGN, codes_of, kinds_of
from megadec.corpus.quality.language import CHINESE, JAPANESE, KOREAN, letters_by_language

JUDGED_CHARACTERS = 20_000
NGRAM_CHARACTERS = 8
HASHED_NGRAMS = 500  # fewer are counted faster as they are
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BLANK = re.compile(r"\s+")
_SENTENCE_END = re.compile("[。！？!?…．；;][”’」』）)》\"']*\\s*$", re.MULTILINE)
# UTF-8 read as GBK, GBK read as UTF-8 and back, memory of a debugger, UTF-8 read as Latin-1.
_GARBLED = re.compile("\ufffd|锟斤拷|锟紸|烫烫烫|屯屯屯|[ÃÂ][\x80-\xbf]|â€|[ä-é][\x80-\xbf]{2}")


@dataclass(frozen=True)
class QualityRules:
    """Thresholds of one kind of text; shares are of the characters that are not blank.

    `boilerplate_fraction` and `repeated_line_fraction` are shares of the characters in lines that are boilerplate, or
    that stood in the document before; `repeated_ngram_fraction` of 8-character n-grams that stood before; those of
    languages are of the letters.
    """

    min_characters: int = 50
    max_characters: int = 10_000_000
    min_han_fraction: float = 0.4
    min_letter_fraction: float = 0.6
    min_chinese_fraction: float = 0.0
    max_japanese_fraction: float = 0.5
    max_korean_fraction: float = 0.5
    max_repeated_line_fraction: float = 0.3
    max_repeated_ngram_fraction: float = 0.5
    max_garbled_fraction: float = 0.001
    max_boilerplate_fraction: float = 0.3
    require_sentence_end: bool = False


RULES = {
    "article": QualityRules(),
    "short": QualityRules(
        min_characters=4, min_han_fraction=0.2, min_letter_fraction=0.3, max_repeated_ngram_fraction=0.7
    ),
    "technical": QualityRules(
        min_han_fraction=0.05, min_letter_fraction=0.4, max_repeated_line_fraction=0.6, max_repeated_ngram_fraction=0.7
    ),
    "none": QualityRules(1, 1 << 62, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
}


@dataclass(frozen=True)
class FilterOptions:
    """Which quality rules hold; what is not given comes from `rules`, and that from the source.

    Attributes:
        rules: article, short (titles, comments), technical (code and formulas among Chinese), none.
        min_characters: fewer are too short.
        max_characters: more are too long.
        min_han_fraction: the least share of Chinese characters.
        min_letter_fraction: the least share of letters and digits of any script.
        min_chinese_fraction: the least share of the letters that may be Chinese; Han of Japanese sentences is not.
        max_japanese_fraction: the most of the letters that may be in Japanese sentences.
        max_korean_fraction: the most of the letters that may be Korean.
        max_repeated_line_fraction: the most of the characters that may be in lines which stood before.
        max_repeated_ngram_fraction: the most 8-character n-grams that may have stood before.
        max_garbled_fraction: the most characters that may look like text read in another encoding.
        max_boilerplate_fraction: the most of the characters that may be in lines of boilerplate.
        require_sentence_end: whether a line has to end like a sentence.
        classifier: a file of train_quality, which judges the texts that pass the rules.
        min_quality: the least probability, by the classifier, that a text is good.
    """

    rules: str = ""
    min_characters: int | None = None
    max_characters: int | None = None
    min_han_fraction: float | None = None
    min_letter_fraction: float | None = None
    min_chinese_fraction: float | None = None
    max_japanese_fraction: float | None = None
    max_korean_fraction: float | None = None
    max_repeated_line_fraction: float | None = None
    max_repeated_ngram_fraction: float | None = None
    max_garbled_fraction: float | None = None
    max_boilerplate_fraction: float | None = None
    require_sentence_end: bool | None = None
    classifier: Path | None = None
    min_quality: float = 0.5


def choose_rules(options: FilterOptions, default: str) -> QualityRules:
    """The rules that `options` ask for, over those named `default`. Raises ConfigError for an unknown name or range."""
    check_range(options, "filter.", "min_quality", least=0, most=1)
    name = options.rules or default
    check_choice("filter.rules", name, RULES)
    if options.classifier is None and options.min_quality != FilterOptions.min_quality:
        raise ConfigError(f"filter.min_quality={options.min_quality:g} wants a filter.classifier, which none was given")
    thresholds = {field.name: getattr(options, field.name) for field in fields(QualityRules)}
    rules = replace(RULES[name], **{key: value for key, value in thresholds.items() if value is not None})
    if rules.min_characters > rules.max_characters:
        both = f"filter.min_characters={rules.min_characters} is above filter.max_characters={rules.max_characters}"
        raise ConfigError(f"{both}: no text passes")
    return rules


class Judgment(NamedTuple):
    """What one rule found: the threshold's name, the figure of this text, and `reason`: what a drop is called."""

    reason: str
    rule: str
    value: float
    threshold: float
    passed: bool


def drop_reason(text: str, rules: QualityRules) -> str:
    """Why `text` breaks the rules, or an empty string: the first rule that does not hold.

    empty, too_short, too_long, garbled, few_letters, japanese, korean, low_chinese, low_han, no_sentence_end,
    repeated_lines, boilerplate, repeated_ngrams.
    """
    return next((found.reason for found in judge(text, rules) if not found.passed), "")


def judge(text: str, rules: QualityRules) -> Iterator[Judgment]:
    """What each rule finds, the cheapest rules first; an empty text is judged by none but its length."""

    def least(reason: str, rule: str, value: float) -> Judgment:
        threshold = getattr(rules, rule)
        return Judgment(reason, rule, value, threshold, value >= threshold)

    def most(reason: str, rule: str, value: float) -> Judgment:
        threshold = getattr(rules, rule)
        return Judgment(reason, rule, value, threshold, value <= threshold)

    head = text[:JUDGED_CHARACTERS]
    dense = _BLANK.sub("", head)
    size = len(dense)
    if not dense:
        yield Judgment("empty", "min_characters", 0, rules.min_characters, False)
        return
    yield least("too_short", "min_characters", size if len(text) <= JUDGED_CHARACTERS else len(text))
    yield most("too_long", "max_characters", len(text))
    yield most("garbled", "max_garbled_fraction", _covered(_GARBLED, dense) / size)
    kinds = kinds_of(codes_of(head))
    counts = np.bincount(kinds, minlength=KINDS).tolist()
    yield least("few_letters", "min_letter_fraction", (size - counts[SIGN]) / size)
    letters = letters_by_language(kinds)
    total = max(letters.total(), 1)
    yield most("japanese", "max_japanese_fraction", letters[JAPANESE] / total)
    yield most("korean", "max_korean_fraction", letters[KOREAN] / total)
    yield least("low_chinese", "min_chinese_fraction", letters[CHINESE] / total)
    yield least("low_han", "min_han_fraction", counts[HAN] / size)
    if rules.require_sentence_end:
        ends = len(_SENTENCE_END.findall(text))
        yield Judgment("no_sentence_end", "require_sentence_end", ends, 1, ends > 0)
    lines = [line.strip() for line in head.split("\n") if line.strip()]
    characters = sum(map(len, lines))
    again = sum(len(line) * (count - 1) for line, count in Counter(lines).items())
    yield most("repeated_lines", "max_repeated_line_fraction", again / characters)
    boilerplate = sum(len(line) for line in lines if is_boilerplate(line))
    yield most("boilerplate", "max_boilerplate_fraction", boilerplate / characters)
    yield most("repeated_ngrams", "max_repeated_ngram_fraction", _repeated_ngrams(dense))


def _repeated_ngrams(dense: str) -> float:
    """The share of n-grams that stood before, 0 for a text of a few characters. A long text's are told by hashes."""
    total = len(dense) - NGRAM_CHARACTERS + 1
    if total <= NGRAM_CHARACTERS:
        return 0.0
    if total < HASHED_NGRAMS:
        return 1 - len({dense[start : start + NGRAM_CHARACTERS] for start in range(total)}) / total
    codes = codes_of(dense)
    hashes = np.zeros(total, dtype=np.uint64)
    for place in range(NGRAM_CHARACTERS):
        hashes = hashes * _HASH_FACTOR + codes[place : place + total]
    return 1 - len(np.unique(hashes)) / total


def _covered(pattern: re.Pattern[str], text: str) -> int:
    return sum(match.end() - match.start() for match in pattern.finditer(text))
