"""Tells Simplified from Traditional text, and turns one into the other (OpenCC).

Only characters that belong to one script alone are counted (里, 后, 乾 stand in both), so a line of few characters may
have no variant at all.
"""

import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby

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
_CLAUSE_END = re.compile(r"[，。；：、？！,;:?!「」『』《》〈〉“”（）()【】|\n]+")

# Two of these name a conversion of OpenCC: s2tw. Its t2s leaves every 著, its tw2s turns 原著 and names into 着:
# we take t2s, and turn 著 where it is the particle after a verb or begins a word.
_OPENCC_NAMES = {"zh-hans": "s", "zh-hant": "t", "zh-tw": "tw", "zh-hk": "hk"}
_ASPECT_VERBS = (
    "看写说听想走站坐拿带随沿向对朝跟依照按凭趁借靠挨冒顺接味等抱背提抬举扛挑牵拉推拖捧握抓住留存有藏装载挂贴画刻印绣穿戴披"
    "披盖蒙裹围绕环抹涂开关闭睁瞪盯望瞧瞅笑哭喊叫唱念读讲谈议问答骂吵闹打踢跑跳飞游爬躺睡醒活死生长红亮闪发放冒吹刮下流淌"
    "漂浮沉响弹奏敲跪蹲趴倚伴陪领引守护防争忍受承担负扮演占据控制支持续保维忙急爱恨怀念期盼渴试尝努意执附胶固执连紧系隐含"
    "透露显映照射散伸缩转动摇晃震颤抖摆悬吊立排列堆积摞铺伏潜学教养过奔驶乘骑驾朝面临指压逼迫追赶寻找"
).replace("显", "")
_ASPECT = re.compile(
    rf"(?<=[{_ASPECT_VERBS}])著(?![作名述书者录称])|(?<![名原专论巨编译合遗拙新旧所卓显昭土])著(?=[火手重陆迷急眼实凉色想装落力])"
)


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
    marks = _marks(text[:_COUNTED_CHARACTERS]).tobytes()
    return marks.count(1), marks.count(2)


def to_variant(text: str, source_variant: str, target: str) -> str:
    """The text in `target` (zh-Hans, zh-Hant, zh-TW, zh-HK; empty or `keep`: unchanged) through OpenCC.

    Judged clause by clause, so that a quotation in the other script is converted too, and one that is in the target
    already is left alone: OpenCC takes Simplified for granted and would turn a Traditional 里長 into 裏長.
    `source_variant` is the script of clauses that do not show it: zh-Hans, zh-Hant; mixed or empty: that of the clause
    before.
    Raises ConfigError for a target or a source that is not known.
    """
    if target in ("", "keep"):
        return text
    source, wanted = source_variant.lower(), target.lower()
    if source not in ("", MIXED, "zh-hans", "zh-hant") or wanted not in _OPENCC_NAMES:
        raise ConfigError(f"variant {target!r} from {source_variant!r}: known are zh-Hans, zh-Hant, zh-TW, zh-HK, keep")
    scripts = {"zh-hans": "s", "zh-hant": "t"}
    mine, target = scripts.get(source, ""), _OPENCC_NAMES[wanted]
    s_at, t_at = _script_positions(text)
    if mine and not len(s_at if mine == "t" else t_at):
        return _convert(text, mine, target)
    parts = []
    for (script, is_mixed), clauses in groupby(_judged(text, mine, s_at, t_at), lambda clause: clause[0]):
        part = "".join(clause for _, clause in clauses)
        of_both = is_mixed and target in ("s", "t") and script == target
        parts.append(_convert_mixed(part, target) if of_both else _convert(part, script, target))
    return "".join(parts)


def _judged(text: str, source: str, s_at: np.ndarray, t_at: np.ndarray) -> Iterator[tuple[tuple[str, bool], str]]:
    """The clauses of a text, each with its script (s or t) and whether it holds characters of both."""
    cuts = np.array([0, *(match.end() for match in _CLAUSE_END.finditer(text)), len(text)], dtype=np.int64)
    counts = [np.diff(np.searchsorted(where, cuts)).tolist() for where in (s_at, t_at)]
    last = source or ("t" if len(t_at) > len(s_at) else "s")
    for start, end, s_count, t_count in zip(cuts[:-1].tolist(), cuts[1:].tolist(), *counts, strict=True):
        script = ("t" if t_count > s_count else "s") if s_count or t_count else source or last
        last = script
        yield (script, bool(s_count and t_count)), text[start:end]


def _convert_mixed(text: str, target: str) -> str:
    """A clause that is mostly in the target: only characters that the target lacks are converted."""
    mark, script = (2, "t") if target == "s" else (1, "s")
    converted = _convert(text, script, target)
    if len(converted) != len(text):
        return converted
    table = _script_table()
    return "".join(
        new if ord(old) < _TABLE_SIZE and table[ord(old)] == mark else old
        for old, new in zip(text, converted, strict=True)
    )


def _convert(text: str, script: str, target: str) -> str:
    if script == target:
        return text
    converted = str(_converter(f"{script}2{target}").convert(text))
    return _ASPECT.sub("着", converted) if target == "s" and "著" in converted else converted


def _script_positions(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the characters stand that only Simplified has, and those that only Traditional has."""
    marks = _marks(text)
    return np.flatnonzero(marks == 1), np.flatnonzero(marks == 2)


def _marks(text: str) -> np.ndarray:
    """For each character: 1 only Simplified, 2 only Traditional, 0 both or neither."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return _script_table().take(codes, mode="clip")


@cache
def simplified_codes() -> np.ndarray:
    """For each code point the one of its Simplified form, character by character (uint64); the last is left alone."""
    codes = np.arange(_TABLE_SIZE, dtype=np.uint64)
    han = [code for start, end in _HAN_BLOCKS[:2] for code in range(start, end)]
    forms = _converter("t2s").convert("\n".join(map(chr, han))).split("\n")
    codes[han] = [ord(form) if len(form) == 1 else code for code, form in zip(han, forms, strict=True)]
    return codes


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
