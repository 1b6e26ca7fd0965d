"""Turns a template into the words it shows, by tables from its name to what of it is text.

A template of no table shows nothing: a guess at which of its arguments is text would invent facts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from megadec.corpus.clean.wiki.templates import amounts, blocks, cells, dates, inline, languages, places
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Page, Recipe
from megadec.corpus.clean.wiki.templates.functions import FUNCTIONS

_NAMESPACE = re.compile(r"^(?:(?:template|模板|样板|樣板|t|subst|safesubst|msgnw|raw)\s*:\s*)+")


def expand(name: str, parameters: Sequence[tuple[str, str]], page: Page) -> str | None:
    """The text that a template shows; None where no rule knows it: it shows nothing, and the caller counts it.

    `parameters` are its arguments in order as (name, value); those without a name are called 1, 2, 3, ... Values are
    text already, what stands inside is expanded first. `name` may be a parser function with what follows its colon
    (`#if: x`).
    """
    plain = template_name(name)
    function, colon, _ = plain.partition(":")
    if colon and function in _FUNCTIONS:
        return _FUNCTIONS[function](Arguments(parameters, page, function, name.partition(":")[2]))
    recipe = _recipe(plain)
    return None if recipe is None else recipe(Arguments(parameters, page, plain))


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


_TABLE: dict[str, Recipe] = {
    name: recipe
    # Of two rules for one name the later stands.
    for table in (cells, places, dates, amounts, languages, blocks, inline)
    for names, recipe in table.TABLE
    for name in names
}
_FUNCTIONS = FUNCTIONS | {name: _TABLE[name] for name in ("pagename", "fullpagename", "basepagename", "subpagename")}
