"""Turns a template into the words it shows, by a table from its name to what of it is text.

Templates of no table are judged by their place: alone on a line they are boxes and go, inside a sentence their text
argument stays. {{convert}} keeps the number and the unit given.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from mwparserfromhell.nodes import Template
from mwparserfromhell.wikicode import Wikicode

from megadec.corpus.clean import template_words as words
from megadec.corpus.clean.protect import LINE_BREAK
from megadec.corpus.clean.template_words import COUNTRIES, LANGUAGES, UNITS
from megadec.corpus.clean.variant import SIMPLIFIED, TRADITIONAL, to_variant

_HAN = re.compile(r"[\u3400-\u9fff]")
_INLINE_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Page:
    """What a template or a link needs to know of the page it stands on."""

    title: str
    variant: str


class Arguments:
    """A template's arguments by name or position (counted from 1), rendered to text when they are asked for."""

    def __init__(self, template: Template, render: Callable[[Wikicode], str], page: Page) -> None:
        self._values = {str(parameter.name).strip().lower(): parameter.value for parameter in template.params}
        self._render = render
        self.page = page

    def text(self, *names: int | str) -> str:
        """The first of these arguments that is not empty, as text."""
        for name in names:
            value = self._values.get(str(name))
            if value is not None and (text := self._render(value).strip()):
                return text
        return ""

    def positional(self) -> list[str]:
        """All non-empty positional arguments in order."""
        return [text for name in self._values if name.isdigit() and (text := self.text(name))]


Recipe = Callable[[Arguments], str]


def expand(template: Template, render: Callable[[Wikicode], str], page: Page, *, in_sentence: bool) -> str:
    """The text a template shows, or an empty string. `render` turns an argument into text."""
    name = template_name(str(template.name))
    arguments = Arguments(template, render, page)
    recipe = _recipe(name)
    if recipe is not None:
        return recipe(arguments)
    return _text_argument(arguments) if in_sentence and not _DROPPED.match(name) else ""


def template_name(raw: str) -> str:
    """`Template: Lang-en ` -> `lang-en`: lower case, blanks for underscores, no namespace."""
    name = re.sub(r"[\s_]+", " ", raw).strip().lower()
    return re.sub(r"^(?:template|模板|样板|樣板|t):\s*", "", name)


def _recipe(name: str) -> Recipe | None:
    if name in _RECIPES:
        return _RECIPES[name]
    prefix, hyphen, rest = name.partition("-")
    if hyphen and prefix in ("lang", "langx") and rest:
        return lambda arguments: _labelled(rest, arguments.text(1), arguments.page)
    if hyphen and prefix in ("link", "le", "ilh", "translink"):
        return _RECIPES["link-en"]
    function, colon, rest = name.partition(":")
    if colon and function in ("formatnum", "lc", "uc", "lcfirst", "ucfirst"):
        return lambda arguments: rest
    return None


def _text_argument(arguments: Arguments) -> str:
    """Of an unknown template inside a sentence: the argument with Han characters, else the last; short ones only."""
    values = arguments.positional()
    chosen = next((value for value in values if _HAN.search(value)), values[-1] if values else "")
    return chosen if len(chosen) <= _INLINE_CHARACTERS and "\n" not in chosen and "=" not in chosen else ""


def _labelled(code: str, text: str, page: Page) -> str:
    """`英语：tea`, as {{lang-en|tea}} shows it; the text alone for a language that the table lacks."""
    label = _in_variant(LANGUAGES.get(code.split("-")[0], ""), page) if text else ""
    return f"{label}：{text}" if label else text


def _in_variant(shown: str, page: Page) -> str:
    """Our tables are in Simplified; a Traditional page gets Traditional words."""
    return to_variant(shown, SIMPLIFIED, TRADITIONAL) if page.variant == TRADITIONAL else shown


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
    return _in_variant(shown, arguments.page)


def _country(name: str) -> Recipe:
    return lambda arguments: _in_variant(COUNTRIES[name], arguments.page)


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
    (["langx"], lambda arguments: _labelled(arguments.text(1), arguments.text(2), arguments.page)),
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
_DROPPED = re.compile("|".join(words.DROPPED))
