"""Which languages a text is written in, by its characters: shares of Chinese (both scripts), Japanese, Korean, English.

Japanese shares its Han characters with Chinese, so it is told by segments (between signs and blanks): nearly every
Japanese clause has kana, no Chinese one has. A Chinese text that quotes Japanese therefore keeps its Chinese share, and
classical Chinese is Chinese.
"""

import re
from collections import Counter

import numpy as np

from megadec.corpus.clean.variant import MIXED, SIMPLIFIED, TRADITIONAL, script_counts, variant_of
from megadec.corpus.quality.characters import BLANK, HAN, KANA, KINDS, NO, SIGN, codes_of, kinds_of

CHINESE, JAPANESE, KOREAN, ENGLISH, OTHER_LANGUAGES = "zh", "ja", "ko", "en", "other"
# zh: Chinese whose characters are the same in both scripts.
LANGUAGES = (SIMPLIFIED, TRADITIONAL, CHINESE, JAPANESE, KOREAN, ENGLISH, OTHER_LANGUAGES)
# Names of people and works (安倍晋三, ドラえもん) lie at 0 or 1; sentences at 0.4 to 0.7.
KANA_IN_JAPANESE = 0.15
# English prose has 0.3 to 0.5; a sentence of another language has a few words that look the same.
ENGLISH_FUNCTION_WORDS = 0.12
# Fewer words in a row are names and terms, which count as English.
SENTENCE_WORDS = 8
_LATIN_SENTENCE = re.compile("[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f' ,;:.-]{40,}")
_ENGLISH = re.compile(
    r"\b(?:the|of|and|to|in|is|that|for|it|was|on|with|as|be|at|by|this|are|from|or|not|have|you|which|an)\b", re.I
)


def language_counts(text: str) -> Counter[str]:
    """Letters of each of LANGUAGES in `text`; digits, signs and blanks are none's."""
    counts = letters_by_language(kinds_of(codes_of(text)))
    for sentence in _LATIN_SENTENCE.findall(text) if counts[ENGLISH] else ():
        words = len(sentence.split())
        if words >= SENTENCE_WORDS and len(_ENGLISH.findall(sentence)) < ENGLISH_FUNCTION_WORDS * words:
            letters = sum(map(str.isalpha, sentence))
            counts.update({ENGLISH: -letters, OTHER_LANGUAGES: letters})
    chinese = counts.pop(CHINESE)
    if chinese:
        counts.update(_by_script(text, chinese))
    return Counter({language: counts[language] for language in LANGUAGES if counts[language]})


def letters_by_language(kinds: np.ndarray) -> Counter[str]:
    """Letters of each language by the kinds of a text's characters alone: Chinese in one, all Latin as English."""
    _, _, _, han, kana, no, hangul, latin, other = np.bincount(kinds, minlength=KINDS).tolist()
    japanese = _japanese(kinds) if kana else 0
    chinese = han + kana + no - japanese
    return Counter({CHINESE: chinese, JAPANESE: japanese, KOREAN: hangul, ENGLISH: latin, OTHER_LANGUAGES: other})


def _japanese(kinds: np.ndarray) -> int:
    """Kana and Han of the segments that are Japanese, and all kana; の alone makes no segment Japanese."""
    segments = np.cumsum((kinds == SIGN) | (kinds == BLANK))
    kana, no, han = (np.bincount(segments, weights=kinds == kind) for kind in (KANA, NO, HAN))
    written = kana + no + han
    japanese = (kana > 0) & (kana + no >= KANA_IN_JAPANESE * written)
    return int(written[japanese].sum() + kana[~japanese].sum())


def _by_script(text: str, chinese: int) -> dict[str, int]:
    variant = variant_of(text)
    if variant != MIXED:
        return {variant or CHINESE: chinese}
    simplified, traditional = script_counts(text)
    first = round(chinese * simplified / (simplified + traditional))
    return {SIMPLIFIED: first, TRADITIONAL: chinese - first}
