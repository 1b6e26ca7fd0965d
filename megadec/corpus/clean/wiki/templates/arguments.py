"""What a template's rule is given: the page it stands on, and its arguments as text; and the simplest rules."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from megadec.corpus.clean.variant import SIMPLIFIED, TRADITIONAL, to_variant


@dataclass(frozen=True, slots=True)
class Page:
    """What a template or a link needs to know of the page it stands on."""

    title: str
    variant: str


class Arguments:
    """A template's arguments by name (lower case) or position (counted from 1), already text.

    `name` is the template's own, in lower case; of a parser function it is what stands before the colon, and `head`
    what follows it.
    """

    def __init__(self, parameters: Sequence[tuple[str, str]], page: Page, name: str = "", head: str = "") -> None:
        self._values = {name.removesuffix("=").strip().lower(): value.strip() for name, value in parameters}
        self._parameters = parameters
        self.page = page
        self.name = name
        self.head = head.strip()

    def text(self, *names: int | str) -> str:
        """The first of these arguments that is not empty."""
        return next((value for name in names if (value := self._values.get(str(name), ""))), "")

    def positional(self) -> list[str]:
        """All non-empty positional arguments in order."""
        return [value for name, value in self._values.items() if name.isdecimal() and value]

    def pieces(self) -> list[str]:
        """What stands between the bars, as a parser function sees it: `a=b` is a piece like any other."""
        pieces: list[str] = []
        position = 1
        for name, value in self._parameters:
            is_positional = name == str(position)
            position += is_positional
            pieces.append(value.strip() if is_positional else f"{name.removesuffix('=').strip()}={value.strip()}")
        return pieces

    def numbered(self, prefix: str) -> list[tuple[int, str]]:
        """The arguments `prefix1`, `prefix2`, ... that are not empty, by their number."""
        found = ((re.fullmatch(rf"{prefix}([0-9]{{1,3}})", name), value) for name, value in self._values.items())
        return sorted((int(match[1]), value) for match, value in found if match and value)

    def words(self, simplified: str) -> str:
        """Words of our own tables, which are in Simplified, in the script of the page."""
        return to_variant(simplified, SIMPLIFIED, TRADITIONAL) if self.page.variant == TRADITIONAL else simplified


# None: the rule knows that nothing can be shown, as where it would take today's date or an exchange rate.
Recipe = Callable[[Arguments], str | None]
Table = tuple[tuple[list[str], Recipe], ...]


def parameters_of(values: Sequence[list[str]]) -> list[tuple[str, str]]:
    """Names and values; a name that is written keeps its equals sign: `|1=a` is no `|a` to a parser function."""
    parameters: list[tuple[str, str]] = []
    position = 0
    for parts in values:
        name, equals, value = parts[0].partition("=") if parts else ("", "", "")
        if equals:
            parameters.append((name + equals, value + "".join(parts[1:])))
        else:
            position += 1
            parameters.append((str(position), "".join(parts)))
    return parameters


def names(text: str) -> list[str]:
    """A table's names: split at commas and line ends."""
    return [name for line in text.split("\n") for part in line.split(",") if (name := part.strip())]


def pairs(text: str) -> dict[str, str]:
    """A table of `name word`: the last blank of each entry divides them."""
    return {name: word for entry in names(text) for name, _, word in [entry.rpartition(" ")]}


def argument(*wanted: int | str) -> Recipe:
    """A rule that shows the first of these arguments that is not empty."""
    return lambda arguments: arguments.text(*wanted)


def constant(text: str) -> Recipe:
    """A rule that shows the same words always, in the script of the page."""
    return lambda arguments: arguments.words(text)


def joined(separator: str) -> Recipe:
    """A rule that shows all positional arguments."""
    return lambda arguments: separator.join(arguments.positional())
