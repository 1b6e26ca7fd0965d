"""Tells Simplified from Traditional text, and turns one into the other (OpenCC).

Only characters that belong to one script alone are counted (里, 后, 乾 stand in both), so a line of few characters may
have no variant at all.
"""

from functools import cache

import numpy as np
import opencc

from megadec.common.errors import ConfigError

SIMPLIFIED, TRADITIONAL, MIXED = "zh-Hans", "zh-Hant", "mixed"
# Below this share the other script's characters count as slips or names, not as a mixture.
MIXED_FRACTION = 0.1
# Characters that OpenCC's STCharacters converts though they are also right in Traditional text (its list of
# candidates holds the character itself): 皇后, 公里, 台, 云云 ...
_SIMPLIFIED_IN_BOTH = frozenset(
    "熏淀郁适雇采里辟荐胜苹虫跖腊腌范蚝蝎蜡膻准几凶厂厘划占台叶吁吃后帘岩岳党夸咨咸尸唇干广征确种筑皂挂涂涌杠杰极游据斗愿"
    "朴柜万丑丰伙于云亘仆价余佣㐹"
)
# The same for TSCharacters: 乾坤 and 宫商角徵羽 are Simplified text. 於 is left to count: it is a name there, and rare.
_TRADITIONAL_IN_BOTH = frozenset("谿扞昇釐麽陞薹脩蒐袷祕氾剋劄徵夥吒乾")
_HAN_BLOCKS = ((0x3400, 0x4DC0), (0x4E00, 0xA000), (0x20000, 0x323B0))
_TABLE_SIZE = 0x32400
_COUNTED_CHARACTERS = 50_000

# Two of these name a conversion of OpenCC: s2tw. Its t2s leaves 看著, which is right for Hong Kong and safe for names;
# tw2s would know that Taiwan writes 著 for 着, and pay with names and 原著.
_OPENCC_NAMES = {"zh-hans": "s", "zh-hant": "t", "zh-tw": "tw", "zh-hk": "hk"}


def variant_of(text: str) -> str:
    """`zh-Hans`, `zh-Hant` or `mixed`, by the characters that only one script has; empty where the text has none.

    Looks at the first 50,000 characters; about 10 ns a character.
    """
    simplified, traditional = script_counts(text)
    if simplified + traditional == 0:
        return ""
    if min(simplified, traditional) > MIXED_FRACTION * (simplified + traditional):
        return MIXED
    return SIMPLIFIED if simplified > traditional else TRADITIONAL


def dominating_variant(text: str) -> str:
    """The script that has more of the characters; Simplified where neither has."""
    simplified, traditional = script_counts(text)
    return TRADITIONAL if traditional > simplified else SIMPLIFIED


def script_counts(text: str) -> tuple[int, int]:
    """How many characters of the text exist only in Simplified, and only in Traditional writing."""
    codes = np.frombuffer(text[:_COUNTED_CHARACTERS].encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    counts = np.bincount(_script_table()[np.minimum(codes, _TABLE_SIZE - 1)], minlength=3)
    return int(counts[1]), int(counts[2])


def to_variant(text: str, source_variant: str, target: str) -> str:
    """The text in `target` (zh-Hans, zh-Hant, zh-TW, zh-HK; empty or `keep`: unchanged) through OpenCC.

    `source_variant` is zh-Hans or zh-Hant; mixed text (or an empty source) is judged line by line. Raises ConfigError
    for a target that is not known.
    """
    if target in ("", "keep"):
        return text
    source, wanted = source_variant.lower(), target.lower()
    if source in (MIXED, ""):
        return "\n".join(to_variant(line, dominating_variant(line), target) for line in text.split("\n"))
    if source == wanted:
        return text
    if source not in ("zh-hans", "zh-hant") or wanted not in _OPENCC_NAMES:
        raise ConfigError(f"variant {target!r} from {source_variant!r}: known are zh-Hans, zh-Hant, zh-TW, zh-HK, keep")
    return str(_converter(f"{_OPENCC_NAMES[source]}2{_OPENCC_NAMES[wanted]}").convert(text))


@cache
def _converter(profile: str) -> opencc.OpenCC:
    return opencc.OpenCC(profile)


@cache
def _script_table() -> np.ndarray:
    """uint8 by code point: 1 only Simplified, 2 only Traditional, 0 both or neither. Takes a quarter of a second."""
    characters = [chr(code) for first, end in _HAN_BLOCKS for code in range(first, end)]
    # A line each: OpenCC's phrases then cannot reach over two characters.
    lines = "\n".join(characters)
    table = np.zeros(_TABLE_SIZE, dtype=np.uint8)
    for mark, profile, in_both in ((1, "s2t", _SIMPLIFIED_IN_BOTH), (2, "t2s", _TRADITIONAL_IN_BOTH)):
        for character, converted in zip(characters, _converter(profile).convert(lines).split("\n"), strict=True):
            if converted != character and character not in in_both:
                table[ord(character)] = mark
    return table
