"""MediaWiki's language conversion markup `-{ }-` -> the words that a reader of one variant sees.

In: wikitext and the script of the page. Out: wikitext without `-{ }-`. The grammar and the fallback order follow
MediaWiki (includes/Language/ConverterRule.php, ZhConverter.php). Where MediaWiki shows nothing because no branch fits
the variant, we show the first branch there is, so no word is lost. Rules about the rest of the page (NoteTA, the flags
A and H) are not applied: a page keeps the words that its authors typed.
"""

import re
from collections.abc import Callable

from megadec.corpus.clean.variant import TRADITIONAL

# The variants whose word is taken, nearest first: mainland China and Taiwan stand for the two scripts.
_SIMPLIFIED = ("zh-cn", "zh-hans", "zh-sg", "zh-my")
_TRADITIONAL = ("zh-tw", "zh-hant", "zh-hk", "zh-mo")
_NAMES = {
    "zh": "中文", "zh-hans": "简体", "zh-hant": "繁體", "zh-cn": "大陆", "zh-tw": "臺灣",
    "zh-hk": "香港", "zh-mo": "澳門", "zh-sg": "新加坡", "zh-my": "大马",
}  # fmt: skip
_FLAGS = frozenset("ASTRDHNE-")
_CODE = r"zh(?:-(?:hans|hant|cn|tw|hk|mo|sg|my))?"
_TOKEN = re.compile(r"-\{(?!\{(?!\{))|\{\{|\}\}|\}-")
_BETWEEN_RULES = re.compile(rf";\s*(?=(?:[^;=]*=>\s*)?{_CODE}\s*:)", re.IGNORECASE)
_RULE = re.compile(rf"\s*(?:(?P<source>.*?)\s*=>\s*)?(?P<code>{_CODE})\s*:(?P<text>.*)", re.IGNORECASE | re.DOTALL)


def resolve_conversion(wikitext: str, script: str) -> str:
    """Replace every `-{ }-` by what a reader of `script` (zh-Hans or zh-Hant) sees.

    Handles plain text, rules, the flags A S T R D H N -, variant flags, `=>`, nesting, and markers that are never
    closed (the marker goes, the text stays). H, T and - show nothing, as in MediaWiki.
    """
    variants = _TRADITIONAL if script == TRADITIONAL else _SIMPLIFIED
    return _substitute(wikitext, lambda body: _shown(body, variants))


def _shown(body: str, variants: tuple[str, ...]) -> str:
    flags, text = _split_flags(body)
    if flags & {"H", "T", "-"}:
        return ""
    if "N" in flags:
        return _NAMES.get(text.strip().lower(), text)
    if "R" in flags or any(flag.startswith("zh") for flag in flags):
        return text
    words, one_way = _parse_rules(text)
    if not words and not one_way:
        return text
    if "D" in flags:
        return "；".join(f"{_NAMES[name]}：{word}" for name, word in words.items())
    fitting = [words[code] for code in variants if code in words]
    fitting += [word for (_, code), word in one_way.items() if code == variants[0]]
    return fitting[0] if fitting else next(iter(words.values()), "") or next((source for source, _ in one_way), "")


def _parse_rules(text: str) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Of `zh-cn:A; zh-tw:B; X=>zh-cn:C` the word in each variant, and one-way replacements as (from, variant) -> to."""
    words: dict[str, str] = {}
    one_way: dict[tuple[str, str], str] = {}
    for match in filter(None, map(_RULE.fullmatch, _BETWEEN_RULES.split(text.strip().removesuffix(";")))):
        code, word = match["code"].lower(), match["text"].strip()
        if match["source"]:
            one_way[match["source"], code] = word
        else:
            words.setdefault(code, word)
    return words, one_way


def _split_flags(body: str) -> tuple[set[str], str]:
    head, bar, text = body.partition("|")
    flags = {flag.strip() for flag in head.split(";")} - {""}
    # A bar may also belong to a link or a template inside: then what stands before it is no list of flags.
    if bar and all(flag in _FLAGS or flag.lower() in _NAMES for flag in flags):
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
