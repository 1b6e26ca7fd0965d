"""A page of Wikipedia -> the text a reader sees.

In: a document whose text is wikitext. Out: the document with plain text and its variant, or the reason it has none.
Shuffle: comments, formulas and footnotes aside; `-{ }-` resolved for the variant that the page is mostly written in;
sections cut and boilerplate dropped; each section parsed; leftovers tidied.

Decisions: the authors' own words are kept, so NoteTA's rules are applied only when a `target` variant is asked for;
data tables become lines (tables.py); list items, headings and table rows are lines of their own; no blank lines.
Correctness before speed: a page costs milliseconds in mwparserfromhell, so a dump wants a process pool.
"""

from __future__ import annotations

import re
from dataclasses import replace

from megadec.common.log import logger
from megadec.corpus.clean import conversion
from megadec.corpus.clean.leftovers import drop_invisible, strip_line_markup, tidy
from megadec.corpus.clean.markup import words_of
from megadec.corpus.clean.protect import protect, restore
from megadec.corpus.clean.sections import Section, split_sections, without_boilerplate
from megadec.corpus.clean.templates import Page
from megadec.corpus.clean.variant import dominating_variant, to_variant, variant_of
from megadec.corpus.document import Document
from megadec.corpus.report import Report

DISAMBIGUATION, EMPTY = "disambiguation", "empty"
TANGLED_NOTE = "wikitext sections too tangled for the parser, cleaned by rules alone"

_DISAMBIGUATION_TEMPLATE = re.compile(
    r"\{\{\s*(?:template:)?(?:disambig(?:uation)?(?:[ _-](?:page|cleanup|name|geo))?|disamb|dab|aimai|hndis|geodis|"
    r"numberdis|letter-?number ?combdisambig|letter-?disambig|mathdab|schooldis|roaddis|songdis|airport disambig|"
    r"(?:人名|地名|字母|数字|學校|学校|車站|车站|國際機場|宗教|化學|生物|數學)?消歧[义義](?:[页頁]面?)?)\s*(?:\||\}\})",
    re.I,
)
_DISAMBIGUATION_TITLE = re.compile(r"[（(]消歧[义義][）)]$")

_log = logger(__name__)


def clean_wikitext(document: Document, *, target: str = "", report: Report | None = None) -> Document | str:
    """The document as plain text with its variant, or why it is dropped: `disambiguation` or `empty`.

    `target` (zh-Hans, zh-Hant, zh-TW, zh-HK; empty: keep) converts: the page's own rules first, then OpenCC, and never
    what its authors fixed with `-{ }-`. `report` gets a note for sections that had to be cleaned by rules alone.
    """
    wikitext, kept = protect(document.text)
    if _DISAMBIGUATION_TEMPLATE.search(wikitext) or _DISAMBIGUATION_TITLE.search(document.title):
        return DISAMBIGUATION
    written = dominating_variant(conversion.resolve_conversion(wikitext, "zh-Hans"))
    rules = conversion.page_rules(wikitext) if target else []
    wikitext = conversion.resolve_conversion(wikitext, target or written, mark_fixed=bool(target))
    page = Page(document.title, written)
    passages = []
    tangled = 0
    for section in without_boilerplate(split_sections(wikitext)):
        words, by_rules = _clean_section(section, page)
        tangled += by_rules
        passages.append((section.level, *words))
    if tangled:
        _log.info("%s: %d sections too tangled to parse, cleaned by rules alone", document.id, tangled)
        if report is not None:
            report.note(TANGLED_NOTE, tangled)
    text = _converted(_joined(passages), rules, written, target)
    text = drop_invisible(restore(text, kept)).strip("\n")
    return replace(document, text=text, variant=variant_of(text)) if text.strip() else EMPTY


def _clean_section(section: Section, page: Page) -> tuple[tuple[str, str], bool]:
    """(heading, text) of a section, and whether the parser was passed by."""
    title, _ = words_of(strip_line_markup(section.title), page)
    body, by_rules = words_of(strip_line_markup(section.body), page)
    return (tidy(title), tidy(body)), by_rules


def _joined(passages: list[tuple[int, str, str]]) -> str:
    """Headings and texts as lines, without headings under which nothing stands."""
    lines: list[str] = []
    below = 0  # the level of the nearest kept passage after this one, if it is deeper than what is above
    for level, title, text in reversed(passages):
        if text:
            lines.append(text)
        if title and (text or below > level):
            lines.append(title)
        if text or below > level:
            below = level
    return "\n".join(reversed(lines))


def _converted(text: str, rules: list[conversion.Rule], written: str, target: str) -> str:
    if not target:
        return text
    source = variant_of(text) or written
    ruled = conversion.apply_rules(text, rules, target)
    return conversion.outside_fixed(ruled, lambda part: to_variant(part, source, target))
