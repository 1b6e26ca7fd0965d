"""Quality rules for Chinese text: a document passes, or has a reason.

The rules are those of Gopher (Rae et al. 2021, appendix A) and RefinedWeb (Penedo et al. 2023, section 3), recounted in
characters, so that no segmenter is needed. They look at the first 20,000 characters of a document.
"""

import re
from collections import Counter
from dataclasses import dataclass, fields, replace

from megadec.common.errors import check_choice

JUDGED_CHARACTERS = 20_000
NGRAM_CHARACTERS = 8
_HAN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_BLANK = re.compile(r"\s+")
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_SENTENCE_END = re.compile("[。！？!?…．；;][”’」』）)》\"']*\\s*$", re.MULTILINE)
# UTF-8 read as GBK, GBK read as UTF-8 and back, memory of a debugger, UTF-8 read as Latin-1.
_GARBLED = re.compile("\ufffd|锟斤拷|锟紸|烫烫烫|屯屯屯|[ÃÂ][\x80-\xbf]|â€|[ä-é][\x80-\xbf]{2}")
_BOILERPLATE = re.compile(
    "版权所有|未经授权|转载请注明|点击(?:进入|查看|下载|这里)|请登录|下一页|上一页|返回首页|设为首页|加入收藏"
    "|ICP备|京公网安备|javascript|cookie|责任编辑[:：]|扫一扫|二维码|All Rights Reserved|Copyright",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class QualityRules:
    """Thresholds of one kind of text; shares are of the characters that are not blank.

    `boilerplate_fraction` and `repeated_line_fraction` are shares of the characters in lines that are boilerplate, or
    that stood in the document before; `repeated_ngram_fraction` of 8-character n-grams that stood before.
    """

    min_characters: int = 50
    max_characters: int = 10_000_000
    min_han_fraction: float = 0.4
    min_letter_fraction: float = 0.6
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
    "none": QualityRules(1, 1 << 62, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0),
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
        max_repeated_line_fraction: the most of the characters that may be in lines which stood before.
        max_repeated_ngram_fraction: the most 8-character n-grams that may have stood before.
        max_garbled_fraction: the most characters that may look like text read in another encoding.
        max_boilerplate_fraction: the most of the characters that may be in lines of boilerplate.
        require_sentence_end: whether a line has to end like a sentence.
    """

    rules: str = ""
    min_characters: int | None = None
    max_characters: int | None = None
    min_han_fraction: float | None = None
    min_letter_fraction: float | None = None
    max_repeated_line_fraction: float | None = None
    max_repeated_ngram_fraction: float | None = None
    max_garbled_fraction: float | None = None
    max_boilerplate_fraction: float | None = None
    require_sentence_end: bool | None = None


def choose_rules(options: FilterOptions, default: str) -> QualityRules:
    """The rules that `options` ask for, over those named `default`. Raises ConfigError for an unknown name."""
    name = options.rules or default
    check_choice("filter.rules", name, RULES)
    thresholds = {field.name: getattr(options, field.name) for field in fields(QualityRules)}
    return replace(RULES[name], **{key: value for key, value in thresholds.items() if value is not None})


def drop_reason(text: str, rules: QualityRules) -> str:
    """Why `text` breaks the rules, or an empty string.

    too_short, too_long, garbled, few_letters, low_han, repeated_lines, repeated_ngrams, boilerplate, no_sentence_end.
    """
    length = len(text)
    dense = _BLANK.sub("", text[:JUDGED_CHARACTERS])
    if not dense or (length < JUDGED_CHARACTERS and len(dense) < rules.min_characters):
        return "too_short" if dense else "empty"
    if length > rules.max_characters:
        return "too_long"
    if _covered(_GARBLED, dense) > rules.max_garbled_fraction * len(dense):
        return "garbled"
    if len(_LETTER_OR_DIGIT.findall(dense)) < rules.min_letter_fraction * len(dense):
        return "few_letters"
    if len(_HAN.findall(dense)) < rules.min_han_fraction * len(dense):
        return "low_han"
    if rules.require_sentence_end and not _SENTENCE_END.search(text):
        return "no_sentence_end"
    return _repetition(text[:JUDGED_CHARACTERS], dense, rules)


def _repetition(text: str, dense: str, rules: QualityRules) -> str:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    characters = sum(map(len, lines))
    again = sum(len(line) * (count - 1) for line, count in Counter(lines).items())
    if again > rules.max_repeated_line_fraction * characters:
        return "repeated_lines"
    boilerplate = sum(len(line) for line in lines if _BOILERPLATE.search(line))
    if boilerplate > rules.max_boilerplate_fraction * characters and _covered(_BOILERPLATE, text) > 0.02 * characters:
        return "boilerplate"
    total = len(dense) - NGRAM_CHARACTERS + 1
    if total > NGRAM_CHARACTERS and rules.max_repeated_ngram_fraction < 1:
        distinct = len({dense[start : start + NGRAM_CHARACTERS] for start in range(total)})
        if total - distinct > rules.max_repeated_ngram_fraction * total:
            return "repeated_ngrams"
    return ""


def _covered(pattern: re.Pattern[str], text: str) -> int:
    return sum(match.end() - match.start() for match in pattern.finditer(text))
