"""MediaWiki's language conversion markup `-{ }-` -> the words that a reader of one variant sees.

In: wikitext and a variant. Out: wikitext without `-{ }-`. The grammar and the fallback order follow MediaWiki
(includes/Language/ConverterRule.php, ZhConverter.php). Where MediaWiki shows nothing because no branch fits the
variant, we show the first branch there is, so no word is lost. What a page says of the rest of its text (NoteTA, the
flags A, H and T) is read in glossary.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

# Around words that no later conversion may touch; noncharacters, so no page holds them.
SHIELD_START, SHIELD_END = "\ufdd2", "\ufdd3"

# The variants whose word is taken, nearest first: mainland China and Taiwan stand for the two scripts.
_SIMPLIFIED = ("zh-cn", "zh-hans", "zh-sg", "zh-my", "zh")
_TRADITIONAL = ("zh-tw", "zh-hant", "zh-hk", "zh-mo", "zh")
_NAMES = {
    "zh": "中文", "zh-hans": "简体", "zh-hant": "繁體", "zh-cn": "大陆", "zh-tw": "臺灣",
    "zh-hk": "香港", "zh-mo": "澳門", "zh-sg": "新加坡", "zh-my": "大马",
}  # fmt: skip
_FLAGS = frozenset("ASTRDHNE-")
_CODE = r"zh(?:-(?:hans|hant|cn|tw|hk|mo|sg|my))?"
_TOKEN = re.compile(r"-\{(?!\{(?!\{))|\{\{|\}\}|\}-")
# Possessive, so that a page of blanks takes no quadratic time.
_BETWEEN_RULES = re.compile(rf";\s*+(?=(?:[^;=]*+=>\s*+)?{_CODE}\s*+:)", re.IGNORECASE)
_WORD = re.compile(rf"\s*+({_CODE})\s*+:", re.IGNORECASE)
# MediaWiki resolves 10 inside each other.
_DEEPEST = 20
_SHIELDED = re.compile(f"({SHIELD_START}[^{SHIELD_END}]*{SHIELD_END})")


@dataclass(frozen=True, slots=True)
class Rule:
    """One conversion rule: the word in each variant, and one-way replacements as (from, variant) -> to."""

    words: dict[str, str] = field(default_factory=dict)
    one_way: dict[tuple[str, str], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.words or self.one_way)

    def word_for(self, variants: tuple[str, ...]) -> str | None:
        """The word of the nearest of these variants that the rule names; None where it names none of them."""
        named = [self.words[code] for code in variants if code in self.words]
        named += [to for (_, code), to in self.one_way.items() if code in variants]
        return named[0] if named else None

    def any_word(self) -> str:
        """Some word of the rule, so that nothing is lost where none fits."""
        return next(iter(self.words.values()), "") or next((source for source, _ in self.one_way), "")


def fallbacks(variant: str) -> tuple[str, ...]:
    """MediaWiki's codes for zh-Hans, zh-Hant or one of its own (zh-TW), nearest first."""
    code = variant.lower()
    if code in ("zh-hk", "zh-mo"):
        return tuple(dict.fromkeys((code, "zh-hk", "zh-mo", "zh-hant", "zh-tw", "zh")))
    return _TRADITIONAL if code in _TRADITIONAL[:-1] else _SIMPLIFIED


def resolve_conversion(wikitext: str, variant: str, *, shield: bool = False) -> str:
    """Replace every `-{ }-` by what a reader of `variant` (zh-Hans, zh-Hant) sees.

    Handles plain text, rules, the flags A S T R D H N -, variant flags, `=>`, nesting, and markers that are never
    closed (the marker goes, the text stays). H, T and - show nothing, as in MediaWiki. With `shield` what is shown
    stands between SHIELD_START and SHIELD_END, so that a conversion of the whole text leaves it alone.
    """
    if "-{" not in wikitext:
        return wikitext
    variants = fallbacks(variant)
    return substitute(wikitext, lambda body: shown_of(body, variants, shield=shield))


def shown_of(body: str, variants: tuple[str, ...], *, shield: bool = False) -> str:
    """What `-{body}-` shows, inner ones resolved already."""
    flags, text = split_flags(body)
    if flags & {"H", "T", "-"}:
        return ""
    named = {flag for flag in flags if flag.startswith("zh")}
    if named & set(variants):
        return text  # to be converted like the rest, but for these variants only
    shown = text if named or "R" in flags else _word(flags, text, variants)
    return shielded(shown) if shield and shown else shown


def _word(flags: set[str], text: str, variants: tuple[str, ...]) -> str:
    if "N" in flags:
        return _NAMES.get(text.strip().lower(), text)
    rule = parse_rule(text)
    if not rule:
        return text
    if "D" in flags:
        return "；".join(f"{_NAMES[name]}：{word}" for name, word in rule.words.items())
    fitting = rule.word_for(variants)
    return rule.any_word() if fitting is None else fitting


def parse_rule(text: str) -> Rule:
    """`zh-cn:A; zh-tw:B;` or `X=>zh-cn:A` as a Rule; an empty Rule where the text holds none."""
    rule = Rule()
    for piece in _BETWEEN_RULES.split(text.strip().removesuffix(";")):
        source = ""
        match = _WORD.match(piece)
        if match is None:
            source, _, piece = piece.partition("=>")
            match = _WORD.match(piece)
        if match is None:
            continue
        code, word = match[1].lower(), piece[match.end() :].strip()
        if source.strip():
            rule.one_way[source.strip(), code] = word
        else:
            rule.words.setdefault(code, word)
    return rule


def shielded(text: str) -> str:
    """`text` between the marks that keep it from being converted."""
    return SHIELD_START + without_shields(text) + SHIELD_END


def without_shields(text: str) -> str:
    """`text` without these marks."""
    return text.replace(SHIELD_START, "").replace(SHIELD_END, "")


def outside_shields(text: str, change: Callable[[str], str]) -> str:
    """`change` applied to what no shield covers; the marks stay."""
    return "".join(part if part.startswith(SHIELD_START) else change(part) for part in _SHIELDED.split(text))


def split_flags(body: str) -> tuple[set[str], str]:
    """The flags of `-{flags|text}-` (letters as they are, variants in lower case), and the text."""
    head, bar, text = body.partition("|")
    flags = {flag.strip() for flag in head.split(";")} - {""}
    # A bar may also belong to a link or a template inside: then what stands before it is no list of flags.
    if bar and all(flag in _FLAGS or flag.lower() in _NAMES for flag in flags):
        return {flag if flag in _FLAGS else flag.lower() for flag in flags}, text
    return set(), body


def substitute(text: str, replace: Callable[[str], str]) -> str:
    """One linear pass over `-{ }-` with a stack; inner ones are replaced first; unclosed markers are dropped."""
    frames: list[list[str]] = [[]]
    braces = [0]
    too_deep = 0
    position = search = 0
    while match := _TOKEN.search(text, search):
        token, search = match[0], match.end()
        if (token == "-{" and len(frames) > _DEEPEST) or (token == "}-" and too_deep):
            frames[-1].append(text[position : match.start()])
            too_deep += 1 if token == "-{" else -1
            position = search
        elif token == "-{":
            frames[-1].append(text[position : match.start()])
            frames.append([])
            braces.append(0)
            position = search
        elif token == "{{":
            braces[-1] += 1
        elif token == "}}" and braces[-1] > 0:
            braces[-1] -= 1
        elif token == "}-" and len(frames) > 1:
            body = "".join(frames.pop()) + text[position : match.start()]
            braces.pop()
            frames[-1].append(replace(body))
            position = search
        else:
            search = match.start() + 1
    return "".join(part for frame in frames for part in frame) + text[position:]
