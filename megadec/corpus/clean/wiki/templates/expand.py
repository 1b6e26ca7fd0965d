"""Turns a template into the words it shows, by tables from its name to what of it is text.

A template of no table shows nothing: a guess at which of its arguments is text would invent facts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from megadec.corpus.clean.wiki.templates import ages, amounts, blocks, cells, dates, inline, languages, places
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Page, Recipe
from megadec.corpus.clean.wiki.templates.functions import FUNCTIONS

_NAMESPACE = re.compile(r"^(?:(?:template|模板|样板|樣板|t|subst|safesubst|msgnw|raw)\s*:\s*)+")

_NAMESPACE_AS_WRITTEN = re.compile(r"^\s*(?:(?:template|模板|样板|樣板|t|subst|safesubst|msgnw|raw)\s*:\s*)+", re.I)


def expand(name: str, parameters: Sequence[tuple[str, str]], page: Page, *, in_table: bool = True) -> str | None:
    """The text that a template shows; None where no rule knows it: it shows nothing, and the caller counts it.

    `parameters` are its arguments in order as (name, value); those without a name are called 1, 2, 3, ..., a name that
    is written ends in `=`. Values are text already, what stands inside is expanded first. `name` may be a parser
    function with what follows its colon (`#if: x`). Templates of cells show nothing outside of a table.
    """
    plain = template_name(name)
    function, colon, _ = plain.partition(":")
    if colon and function in _FUNCTIONS:
        head = _NAMESPACE_AS_WRITTEN.sub("", name).partition(":")[2]
        return _FUNCTIONS[function](Arguments(parameters, page, function, head))
    recipe = _recipe(plain)
    if recipe is None or (not in_table and plain in _CELLS):
        return None
    return recipe(Arguments(parameters, page, plain))


@lru_cache(4096)
def has_rule(name: str) -> bool:
    """Whether `expand` knows a rule for a template of this name; what has none is skipped without a look inside."""
    plain = template_name(name)
    return plain.partition(":")[0] in _FUNCTIONS or _recipe(plain) is not None


def template_name(raw: str) -> str:
    """`Template: Lang-en ` -> `lang-en`: lower case, blanks for underscores, no namespace."""
    return _NAMESPACE.sub("", re.sub(r"[\s_]+", " ", raw).strip().lower())


def _recipe(plain: str) -> Recipe | None:
    if recipe := _TABLE.get(plain) or languages.by_prefix(plain) or places.by_prefix(plain):
        return recipe
    return (lambda arguments: dates.date_of(arguments) or None) if dates.IS_DATE.search(plain) else None


# Magic words that take a page or a number behind a colon.
_WITH_ARGUMENT = (
    "pagename", "fullpagename", "basepagename", "subpagename", "articlepagename", "subjectpagename", "rootpagename",
    "numberofarticles", "numberofpages",
)  # fmt: skip
_TABLE: dict[str, Recipe] = {
    name: recipe
    # Of two rules for one name the later stands.
    for table in (cells, places, dates, ages, amounts, languages, blocks, inline)
    for names, recipe in table.TABLE
    for name in names
}
_CELLS = frozenset(name for names, recipe in cells.TABLE for name in names if _TABLE[name] is recipe)
_FUNCTIONS = FUNCTIONS | {name: _TABLE[name] for name in _WITH_ARGUMENT}
