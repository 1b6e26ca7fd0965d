"""Turns a template into the words it shows, by a table from its name to what of it is text.

A template of no table shows nothing: a guess at which of its arguments is text would invent facts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from megadec.corpus.clean.wiki.protect import LINE_BREAK
from megadec.corpus.clean.wiki.templates import words
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Page, Recipe
from megadec.corpus.clean.wiki.templates.words import COUNTRIES, LANGUAGES, UNITS


def expand(name: str, parameters: Sequence[tuple[str, str]], page: Page, in_sentence: bool) -> str | None:
    """The text that a template shows; None where no rule knows it: it shows nothing, and the caller counts it.

    `parameters` are its arguments in order as (name, value); those without a name are called 1, 2, 3, ... Values are
    text already, what stands inside is expanded first. `name` may be a parser function with what follows its colon
    (`#if: x`).
    """
    name = template_name(name)
    recipe = _recipe(name)
    return None if recipe is None else recipe(Arguments(parameters, page))


@lru_cache(4096)
def has_rule(name: str) -> bool:
    """Whether `expand` knows a rule for a template of this name; what has none is skipped without a look inside."""
    return _recipe(template_name(name)) is not None


def template_name(raw: str) -> str:
    """`Template: Lang-en ` -> `lang-en`: lower case, blanks for underscores, no namespace."""
    name = re.sub(r"[\s_]+", " ", raw).strip().lower()
    return re.sub(r"^(?:template|模板|样板|樣板|t):\s*", "", name)


def _recipe(name: str) -> Recipe | None:
    if name in _RECIPES:
        return _RECIPES[name]
    prefix, hyphen, rest = name.partition("-")
    if hyphen and prefix in ("lang", "langx") and rest:
        return lambda arguments: _labelled(rest, arguments.text(1), arguments)
    if hyphen and prefix in ("link", "le", "ilh", "translink"):
        return _RECIPES["link-en"]
    function, colon, rest = name.partition(":")
    if colon and function in ("formatnum", "lc", "uc", "lcfirst", "ucfirst"):
        return lambda arguments: rest
    return None


def _labelled(code: str, text: str, arguments: Arguments) -> str:
    """`英语：tea`, as {{lang-en|tea}} shows it; the text alone for a language that the table lacks."""
    label = arguments.words(LANGUAGES.get(code.split("-")[0], "")) if text else ""
    return f"{label}：{text}" if label else text


def _argument(*names: int | str) -> Recipe:
    return lambda arguments: arguments.text(*names)


def _constant(text: str) -> Recipe:
    return lambda arguments: text


def _joined(separator: str) -> Recipe:
    return lambda arguments: separator.join(arguments.positional())


def _quote(arguments: Arguments) -> str:
    source = arguments.text(2, "source", "author", "sign")
    text = arguments.text(1, "text", "quote", "content")
    return f"{LINE_BREAK}{text}{'——' + source if source and text else ''}{LINE_BREAK}"


def _ruby(arguments: Arguments) -> str:
    base, reading = arguments.text(1), arguments.text(2)
    return f"{base}（{reading}）" if base and reading else base


def _nihongo(arguments: Arguments) -> str:
    shown, rest = arguments.text(1), [text for text in (arguments.text(2), arguments.text(3)) if text]
    return f"{shown}（{'，'.join(rest)}）" if shown and rest else shown or "，".join(rest)


def _measure(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) >= 4 and values[1] in ("-", "–", "to", "and", "x", "×", "至"):
        return f"{values[0]}{'–' if values[1] in ('to', '-') else values[1]}{values[2]}{_unit(values[3])}"
    return f"{values[0]}{_unit(values[1])}" if len(values) >= 2 else "".join(values)


def _unit(unit: str) -> str:
    return UNITS.get(unit, f" {unit}")


def _fraction(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) == 3:
        return f"{values[0]}又{values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _value(arguments: Arguments) -> str:
    power = arguments.text("e")
    unit = arguments.text("u", "ul", "up", "upl")
    number = arguments.text(1) + (f"×10^{power}" if power else "")
    return f"{number} {unit}" if unit and number else number


def _date(arguments: Arguments) -> str:
    parts = [part for part in arguments.positional() if part.isdigit()][:3]
    shown = "".join(part.lstrip("0") + name for part, name in zip(parts, "年月日", strict=False))
    return shown or arguments.text(1)


def _life(arguments: Arguments) -> str:
    values = [arguments.text(position) for position in (1, 2, 3, 4)]
    return f"{values[0]}{values[1]}－{values[2]}{values[3]}" if any(values) else ""


def _japanese(arguments: Arguments) -> str:
    parts = {"日语": ("j", "kj", "s", "1"), "平假名": ("hg",), "罗马字": ("rm",)}
    shown = "；".join(f"{label}：{text}" for label, names in parts.items() if (text := arguments.text(*names)))
    return arguments.words(shown)


def _country(name: str) -> Recipe:
    return lambda arguments: arguments.words(COUNTRIES[name])


# (names, what is text of them)
_TABLE: tuple[tuple[list[str], Recipe], ...] = (
    (words.FIRST_ARGUMENT, _argument(1, "text")),
    (words.SECOND_ARGUMENT, _argument(2, "text", 1)),
    (words.FOREIGN_LINK, _argument("zh_text", "d", "nt", 3, "zh", 1)),
    (words.FOREIGN_LINK_NAMED, _argument("zh_text", "d", "zh", 1)),
    (words.FOREIGN_LINK_LANGUAGE_FIRST, _argument(4, 3, 2)),
    (words.JOINED, _joined("")),
    (words.LIST, _joined(LINE_BREAK)),
    (words.QUOTE, _quote),
    (words.RUBY, _ruby),
    (words.MEASURE, _measure),
    (words.FRACTION, _fraction),
    (words.DATE, _date),
    (["langx"], lambda arguments: _labelled(arguments.text(1), arguments.text(2), arguments)),
    (["transl", "transliteration"], _argument(3, 2)),
    (["nihongo", "nihongo2", "nihongo3"], _nihongo),
    # Alone {{jpn}} is Japan's flag and name; with arguments it gives a Japanese spelling.
    (["jpn"], lambda arguments: _japanese(arguments) or _country("jpn")(arguments)),
    (["kor", "korean"], lambda arguments: arguments.text("k", "hangul", 1) or _country("kor")(arguments)),
    (["val"], _value),
    (["bd", "bd2"], _life),
    (["pagename", "fullpagename", "basepagename", "subpagename"], lambda arguments: arguments.page.title),
    (["e"], lambda arguments: f"×10^{arguments.text(1)}"),
    (["10^"], lambda arguments: f"10^{arguments.text(1)}"),
    (["circa"], lambda arguments: f"约{arguments.text(1)}"),
    (['"', "“", "引號", "引号"], lambda arguments: f"“{arguments.text(1)}”"),
    (["!", "!-"], _constant("|")),
    (["=", "equals"], _constant("=")),
    (["·", "•", "dot", "bullet", "middot"], _constant("·")),
    (["--", "——", "dash", "mdash", "破折號", "破折号"], _constant("——")),
    (["ndash", "snd", "spaced ndash", "en dash"], _constant("–")),
    (["nbsp", "space", "spaces", "-sp"], _constant(" ")),
    (["'", "apostrophe"], _constant("'")),
    (["br", "break", "brk"], _constant(LINE_BREAK)),
)
_RECIPES = {name: _country(name) for name in COUNTRIES} | {name: recipe for names, recipe in _TABLE for name in names}
