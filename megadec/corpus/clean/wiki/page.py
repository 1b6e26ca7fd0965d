"""Turns a page of Wikipedia into the text that a reader sees, and counts what it takes out.

Comments, formulas and footnotes are put aside, `-{ }-` is resolved for the script that the page is mostly written in,
one pass renders the rest, sections without text fall, leftovers are tidied.
"""

import re
from dataclasses import replace

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.conversion import resolve_conversion
from megadec.corpus.clean.glossary import glossary_of
from megadec.corpus.clean.variant import SIMPLIFIED, dominating_variant, variant_of
from megadec.corpus.clean.wiki.leftovers import drop_gaps, drop_invisible, tidy
from megadec.corpus.clean.wiki.protect import SECTION_END, TITLE_END, protect, restore
from megadec.corpus.clean.wiki.render import Section, render
from megadec.corpus.clean.wiki.sections import drop_boilerplate
from megadec.corpus.clean.wiki.templates.arguments import Page
from megadec.corpus.document import Document

_DISAMBIGUATION_TEMPLATE = re.compile(
    r"\{\{\s*(?:(?:template|模板|t):)?"
    r"(?:disambig(?:uation)?(?:[ _-](?:page|cleanup|name|geo))?|disamb|dab|aimai|hndis|geodis|numberdis|"
    r"letter-?number ?combdisambig|letter-?disambig|mathdab|schooldis|roaddis|songdis|airport disambig|"
    r"(?:人名|地名|字母|[数數]字|[学學]校|[车車]站|(?:[国國][际際])?[机機][场場]|宗教|化[学學]|生物|[数數][学學]|[电電]影|歌曲|"
    r"音[乐樂]|道路|公路|[军軍]事|船名|[舰艦]船|公司|姓氏|中文|[电電][视視][节節]目|[游遊][戏戲]|[条條]目)?"
    r"消歧[义義](?:[页頁]面?)?)\s*(?:\||\}\})",
    re.I,
)
_DISAMBIGUATION_TITLE = re.compile(r"[（(]消歧[义義][）)]$")


def clean_wikitext(document: Document, context: CleanContext) -> Document | str:
    """The document as plain text with its variant, or why it is dropped: `disambiguation` or `empty`.

    What goes is counted in `context.taken` by name, but for plain markup: brackets, quotes, list marks, tags.
    """
    taken = context.taken
    wikitext, kept = protect(document.text, taken)
    if _DISAMBIGUATION_TEMPLATE.search(wikitext) or _DISAMBIGUATION_TITLE.search(document.title):
        return "disambiguation"
    resolved = resolve_conversion(wikitext, SIMPLIFIED)
    written, wanted = dominating_variant(resolved), context.wanted
    if wanted or written != SIMPLIFIED:
        resolved = resolve_conversion(wikitext, wanted or written, shield=bool(wanted))
    sections = drop_boilerplate(render(resolved, Page(document.title, wanted or written), taken), taken)
    joined = _joined(sections)
    text, gaps = drop_gaps(joined)
    if gaps:
        taken.add("clauses with a gap", len(joined) - len(text), gaps)
    title, variant = document.title, variant_of(text)
    if wanted:
        glossary = glossary_of(wikitext)
        text = glossary.convert(text, variant or written, context)
        title = glossary.convert_title(title, variant or written, context)
        context.converted = True
    text = drop_invisible(restore(text, kept, taken)).strip("\n")
    return replace(document, text=text, title=title, variant=variant) if text.strip() else "empty"


def _joined(sections: list[Section]) -> str:
    """Headings and texts as lines, without headings under which nothing stands."""
    # All are tidied at once, with marks between them: a call for each costs more than its work.
    whole = f"\n{SECTION_END}\n".join(f"{section.title}\n{TITLE_END}\n{section.body}" for section in sections)
    tidied = [part.partition(TITLE_END) for part in tidy(whole).split(SECTION_END)]
    lines: list[str] = []
    below = 0  # the level of the nearest kept passage after this one, if it is deeper than what is above
    for section, (title, _, text) in zip(reversed(sections), reversed(tidied), strict=True):
        level, title, text = section.level, title.strip("\n"), text.strip("\n")
        if text:
            lines.append(text)
        if title and (text or below > level):
            lines.append(title)
        if text or below > level:
            below = level
    return "\n".join(reversed(lines))
