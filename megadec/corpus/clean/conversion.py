"""MediaWiki's language conversion markup: `-{ }-` and NoteTA rules -> the words that a reader of one variant sees.

In: wikitext and the variant of the page (or the wanted one). Out: wikitext without `-{ }-`, and the page's own rules.
The grammar and the fallback order follow MediaWiki (includes/Language/ConverterRule.php, ZhConverter.php). Where
MediaWiki shows nothing because no branch fits the variant, we show the first branch there is, so no word is lost. The
rules of NoteTA and of `-{A| }-`/`-{H| }-` speak about the rest of the page; they are collected, and applied only when a
target variant is asked for (`apply_rules`): by default a page keeps the words that its authors typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

# Around text that the author has taken out of conversion; noncharacters, so no page holds them (see protect.py).
FIXED_START, FIXED_END = "\ufdd2", "\ufdd3"

_FALLBACK = {
    "zh": ("zh-hans", "zh-hant", "zh-cn", "zh-tw", "zh-hk", "zh-sg", "zh-mo", "zh-my"),
    "zh-hans": ("zh-cn", "zh-sg", "zh-my"),
    "zh-hant": ("zh-tw", "zh-hk", "zh-mo"),
    "zh-cn": ("zh-hans", "zh-sg", "zh-my"),
    "zh-sg": ("zh-my", "zh-hans", "zh-cn"),
    "zh-my": ("zh-sg", "zh-hans", "zh-cn"),
    "zh-tw": ("zh-hant", "zh-hk", "zh-mo"),
    "zh-hk": ("zh-mo", "zh-hant", "zh-tw"),
    "zh-mo": ("zh-hk", "zh-hant", "zh-tw"),
}
_NAMES = {
    "zh": "中文", "zh-hans": "简体", "zh-hant": "繁體", "zh-cn": "大陆", "zh-tw": "臺灣",
    "zh-hk": "香港", "zh-mo": "澳門", "zh-sg": "新加坡", "zh-my": "大马",
}  # fmt: skip
_FLAGS = frozenset("ASTRDHNE-")
_CODE = r"zh(?:-(?:hans|hant|cn|tw|hk|mo|sg|my))?"
_TOKEN = re.compile(r"-\{(?!\{(?!\{))|\{\{|\}\}|\}-")
_BETWEEN_RULES = re.compile(rf";\s*(?=(?:[^;=]*=>\s*)?{_CODE}\s*:)", re.IGNORECASE)
_RULE = re.compile(rf"\s*(?:(?P<source>.*?)\s*=>\s*)?(?P<code>{_CODE})\s*:(?P<text>.*)", re.IGNORECASE | re.DOTALL)
_NOTE = re.compile(r"\{\{\s*note[ _]?ta[^|{}]*\|", re.IGNORECASE)
_NOTE_TOKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]|-\{|\}-|\|")
_FIXED = re.compile(f"({FIXED_START}[^{FIXED_END}]*{FIXED_END})")


@dataclass(frozen=True, slots=True)
class Rule:
    """One conversion rule: the word in each variant, and one-way replacements as (from, variant) -> to."""

    words: dict[str, str] = field(default_factory=dict)
    one_way: dict[tuple[str, str], str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.words or self.one_way)

    def word_for(self, variant: str) -> str | None:
        """The word of `variant` or of the nearest variant that the rule names; None where no near one is named."""
        for code in (variant, *_FALLBACK[variant]):
            if code in self.words:
                return self.words[code]
        return next((to for (_, code), to in self.one_way.items() if code == variant), None)

    def any_word(self) -> str:
        """Some word of the rule, so that nothing is lost where none fits."""
        return next(iter(self.words.values()), None) or next((source for source, _ in self.one_way), "")


def variant_code(variant: str) -> str:
    """MediaWiki's code for one of ours: zh-Hans, mixed and the empty one -> zh-cn, zh-Hant -> zh-tw, zh-HK -> zh-hk."""
    code = variant.lower()
    if code in ("zh-hant", "zh-tw"):
        return "zh-tw"
    return code if code in _FALLBACK and code not in ("zh", "zh-hans") else "zh-cn"


def resolve_conversion(wikitext: str, variant: str, *, mark_fixed: bool = False) -> str:
    """Replace every `-{ }-` by what a reader of `variant` (zh-Hans, zh-Hant, zh-cn, zh-tw, ...) sees.

    Handles plain text, rules, the flags A S T R D H N -, variant flags, `=>`, nesting, and markers that are never
    closed (the marker goes, the text stays). H, T and - show nothing, as in MediaWiki. With `mark_fixed` the text is
    put between FIXED_START and FIXED_END, so that a later conversion can leave it alone.
    """
    code = variant_code(variant)

    def show(body: str) -> str:
        shown = _shown(body, code)
        if not mark_fixed or not shown:
            return shown
        return FIXED_START + shown.replace(FIXED_START, "").replace(FIXED_END, "") + FIXED_END

    return _substitute(wikitext, show)


def page_rules(wikitext: str) -> list[Rule]:
    """The rules a page sets for its whole text: NoteTA's numbered ones, and those of `-{A| }-` and `-{H| }-`.

    NoteTA's G1=IT and the like name lists that live outside the page and are left out.
    """
    rules = [parse_rule(value) for value in _note_values(wikitext)]

    def collect(body: str) -> str:
        flags, text = _split_flags(body)
        if flags & {"A", "H"}:
            rules.append(parse_rule(text))
        return text

    _substitute(wikitext, collect)
    return [rule for rule in rules if rule]


def apply_rules(text: str, rules: Iterable[Rule], variant: str) -> str:
    """Replace the words of other variants by those of `variant`, longest first, except between the FIXED marks."""
    code = variant_code(variant)
    replacements: dict[str, str] = {}
    for rule in rules:
        wanted = rule.word_for(code)
        for word in rule.words.values():
            if word and wanted is not None and word != wanted:
                replacements.setdefault(word, wanted)
        for (source, for_code), to in rule.one_way.items():
            if source and for_code in (code, *_FALLBACK[code]):
                replacements.setdefault(source, to)
    if not replacements:
        return text
    # The wanted words are matched too, and stay: else a word inside one of them would be replaced a second time.
    words = sorted({*replacements, *replacements.values()} - {""}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, words)))
    return outside_fixed(text, lambda part: pattern.sub(lambda match: replacements.get(match[0], match[0]), part))


def outside_fixed(text: str, change: Callable[[str], str]) -> str:
    """`change` applied to what stands outside the FIXED marks; the marks stay."""
    return "".join(part if part.startswith(FIXED_START) else change(part) for part in _FIXED.split(text))


def parse_rule(text: str) -> Rule:
    """`zh-cn:A; zh-tw:B;` or `X=>zh-cn:A` as a Rule; an empty Rule where the text holds none."""
    rule = Rule()
    for piece in _BETWEEN_RULES.split(text.strip().removesuffix(";")):
        match = _RULE.fullmatch(piece)
        if match is None:
            continue
        code, word = match["code"].lower(), match["text"].strip()
        if match["source"]:
            rule.one_way[match["source"], code] = word
        else:
            rule.words.setdefault(code, word)
    return rule


def _shown(body: str, code: str) -> str:
    flags, text = _split_flags(body)
    if flags & {"H", "T", "-"}:
        return ""
    if "N" in flags:
        return _NAMES.get(text.strip().lower(), text)
    if "R" in flags or any(flag.startswith("zh") for flag in flags):
        return text
    rule = parse_rule(text)
    if not rule:
        return text
    if "D" in flags:
        return "；".join(f"{_NAMES[name]}：{word}" for name, word in rule.words.items())
    word = rule.word_for(code)
    return rule.any_word() if word is None else word


def _split_flags(body: str) -> tuple[set[str], str]:
    head, bar, text = body.partition("|")
    flags = {flag.strip() for flag in head.split(";")} - {""}
    # A bar may also belong to a link or a template inside: then what stands before it is no list of flags.
    if bar and all(flag in _FLAGS or flag.lower() in _FALLBACK for flag in flags):
        return {flag if flag in _FLAGS else flag.lower() for flag in flags}, text
    return set(), body


def _substitute(text: str, replace: Callable[[str], str]) -> str:
    """One linear pass over `-{ }-` with a stack; inner ones are replaced first; unclosed markers are dropped."""
    frames: list[list[str]] = [[]]
    braces = [0]
    position = search = 0
    while match := _TOKEN.search(text, search):
        token, search = match[0], match.end()
        if token == "-{":
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


def _note_values(wikitext: str) -> Iterable[str]:
    """The values of the numbered arguments of every {{NoteTA}} in the text."""
    for note in _NOTE.finditer(wikitext):
        depth, start = 1, note.end()
        for token in _NOTE_TOKEN.finditer(wikitext, start):
            ends = token[0] in ("}}", "]]", "}-")
            if depth == 1 and (token[0] == "|" or ends):
                name, _, value = wikitext[start : token.start()].partition("=")
                if value and name.strip().isdigit():
                    yield value
                elif not value or name.strip().lower().startswith("zh"):
                    yield f"{name}={value}" if value else name
                start = token.end()
            depth += -1 if ends else token[0] != "|"
            if depth == 0:
                break
