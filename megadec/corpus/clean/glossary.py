"""The words that a page, or its conversion groups, set for a variant: NoteTA, `-{A| }-`, `-{H| }-`, `-{T| }-`, CGroup.

They speak about the whole page, and are applied only where a run asks for a variant (`--variant`): otherwise a page
keeps the words that its authors typed. Groups (`G1=IT`) are read from conversion_groups.txt, and from a file of the
user's own in the same form.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from megadec.common.errors import InputError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.conversion import (
    Rule,
    fallbacks,
    outside_shields,
    parse_rule,
    shielded,
    split_flags,
    substitute,
    without_shields,
)
from megadec.corpus.clean.variant import SIMPLIFIED, TRADITIONAL, to_variant

GROUPS_FILE = Path(__file__).with_name("conversion_groups.txt")

_NOTE = re.compile(r"\{\{\s*(?:(?:template|模板|t):\s*)?(?:note[ _]?ta[^|{}]*)\|", re.IGNORECASE)
_NOTE_TOKEN = re.compile(r"\{\{|\}\}|\[\[|\]\]|-\{|\}-|\|")
_GROUP_TEMPLATE = re.compile(r"\{\{\s*(?:(?:template|模板|t)\s*:\s*)?cgroup\s*[/|]([^{}]*)", re.IGNORECASE)
_GROUP_KEY = re.compile(r"g[0-9]+", re.IGNORECASE)


class Replacements(NamedTuple):
    """Words and what they become; the lengths of those that begin with a character, longest first; those characters."""

    words: dict[str, str]
    lengths: dict[str, tuple[int, ...]]
    firsts: re.Pattern[str] | None


@dataclass
class Glossary:
    """What one page says about the words of its text and its title."""

    rules: list[Rule] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    title: str = ""  # a rule or a word

    def convert(self, text: str, written: str, context: CleanContext) -> str:
        """The text in the run's variant: the page's rules first, then its groups', then OpenCC; shields are gone.

        `written` is the script of the original. Words that change are counted as "words converted".
        """
        target = context.variant
        tables = [_replacements(self.rules, target), _group_replacements(tuple(self.groups), context.groups, target)]
        for table in tables:
            text = outside_shields(text, partial(_replace, table=table, context=context))
        return without_shields(outside_shields(text, lambda part: to_variant(part, written, target)))

    def convert_title(self, title: str, written: str, context: CleanContext) -> str:
        """The title as the page sets it for the run's variant, or converted like its text."""
        rule = parse_rule(self.title)
        given = rule.word_for(fallbacks(context.variant)) if rule else self.title
        return without_shields(given) if given else self.convert(title, written, context)


def glossary_of(wikitext: str) -> Glossary:
    """The rules that a page sets for its whole text. Linear in the length of the page."""
    glossary = Glossary()
    for name, value in _note_values(wikitext):
        if name == "t":
            glossary.title = value
        elif _GROUP_KEY.fullmatch(name):
            glossary.groups.append(value.strip().lower())
        elif rule := parse_rule(value):
            glossary.rules.append(rule)

    for group in _GROUP_TEMPLATE.findall(wikitext):
        glossary.groups.extend(name.strip().lower() for name in re.split(r"[|/]", group))

    def collect(body: str) -> str:
        flags, text = split_flags(body)
        if "T" in flags:
            glossary.title = text
        elif flags & {"A", "H"} and (rule := parse_rule(text)):
            glossary.rules.append(rule)
        return text

    if "-{" in wikitext:
        substitute(wikitext, collect)
    return glossary


def _note_values(wikitext: str) -> Iterator[tuple[str, str]]:
    """The arguments of every {{NoteTA}} as (name in lower case, value); `zh-cn:a` without a name has the name ""."""
    scanned_to = 0
    for note in _NOTE.finditer(wikitext):
        if note.start() < scanned_to:  # inside one that never ends
            continue
        depth, start = 1, note.end()
        for token in _NOTE_TOKEN.finditer(wikitext, start):
            scanned_to = token.end()
            ends = token[0] in ("}}", "]]", "}-")
            if depth == 1 and (token[0] == "|" or ends):
                name, equals, value = wikitext[start : token.start()].partition("=")
                if equals and re.fullmatch(r"[a-z]*[0-9]*", name.strip().lower()):
                    yield name.strip().lower(), value.strip()
                else:
                    yield "", f"{name}{equals}{value}"
                start = token.end()
            depth += -1 if ends else token[0] != "|"
            if depth == 0:
                break


@cache
def groups_of(path: str) -> dict[str, list[Rule]]:
    """The rules of each group of a file, by the group's names in lower case.

    A line `[IT, 信息技术]` begins a group with its names; each line under it is a rule as NoteTA has it
    (`zh-cn:软件;zh-tw:軟體;`); lines that begin with # are comments. Raises InputError for
    another line, and for a file that cannot be read as UTF-8.
    """
    groups: dict[str, list[Rule]] = {}
    rules: list[Rule] | None = None
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no file of UTF-8 text: {error}") from error
    for number, line in enumerate(lines, start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            rules = []
            for name in line[1:-1].split(","):
                rules = groups.setdefault(name.strip().lower(), rules)
        elif rules is not None and (rule := parse_rule(line)):
            rules.append(rule)
        else:
            raise InputError(f"{path}:{number}: {line!r} is neither [a group] nor a rule (zh-cn:软件;zh-tw:軟體)")
    return groups


@lru_cache(maxsize=256)
def _group_replacements(groups: tuple[str, ...], own_file: str, target: str) -> Replacements:
    files = [*([own_file] if own_file else []), str(GROUPS_FILE)]
    rules = [rule for group in groups for file in files for rule in groups_of(file).get(group, ())]
    return _replacements(rules, target)


def _replacements(rules: Iterable[Rule], target: str) -> Replacements:
    """From the words of other variants, in either script, to those of `target`; its own stay as they are."""
    variants = fallbacks(target)
    found: dict[str, str] = {}
    for rule in rules:
        wanted = rule.word_for(variants)
        if wanted:
            found.setdefault(wanted, wanted)
        for word in filter(None, rule.words.values() if wanted else ()):
            for form in (word, to_variant(word, SIMPLIFIED, TRADITIONAL), to_variant(word, TRADITIONAL, SIMPLIFIED)):
                found.setdefault(form, wanted or "")
        for (source, code), to in rule.one_way.items():
            if source and code in variants:
                found.setdefault(source, to)
    lengths: dict[str, set[int]] = {}
    for word in found:
        lengths.setdefault(word[0], set()).add(len(word))
    ordered = {first: tuple(sorted(sizes, reverse=True)) for first, sizes in lengths.items()}
    return Replacements(found, ordered, re.compile(f"[{re.escape(''.join(ordered))}]") if ordered else None)


def _replace(text: str, table: Replacements, context: CleanContext) -> str:
    """`text` with the words of the table replaced, longest first, and shielded; linear, however many words."""
    if table.firsts is None:
        return text
    parts: list[str] = []
    end = 0
    for match in table.firsts.finditer(text):
        start = match.start()
        if start < end:
            continue
        for length in table.lengths[match[0]]:
            written = text[start : start + length]
            if (word := table.words.get(written)) is not None:
                parts += (text[end:start], shielded(word))
                end = start + length
                if word != written:
                    context.taken.add("words converted", length - len(word))
                break
    return "".join(parts) + text[end:]
