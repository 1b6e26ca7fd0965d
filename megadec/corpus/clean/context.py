"""What a cleaner is told of its run, and where it says what it took out of a document."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

MOST_UNKNOWN = 1000


@dataclass
class Taken:
    """What was taken out of documents, by name: how many pieces (a table, a reference) and how many characters.

    A name whose characters are negative added some: {{date}} shows more than it is written with. `unknown` has how
    often a template without a rule stood inside a sentence, by its name; of many names the rarest are forgotten.
    """

    pieces: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, characters: int, pieces: int = 1) -> None:
        """Count `pieces` of a kind that had so many characters in all."""
        self.pieces[name] += pieces
        self.characters[name] += characters

    def merge(self, other: Self) -> None:
        """Add the counts of `other`."""
        self.pieces.update(other.pieces)
        self.characters.update(other.characters)
        self.unknown.update(other.unknown)
        if len(self.unknown) > 2 * MOST_UNKNOWN:
            by_number = sorted(self.unknown.items(), key=lambda item: (-item[1], item[0]))
            self.unknown = Counter(dict(by_number[:MOST_UNKNOWN]))


@dataclass
class CleanContext:
    """One document's cleaning: what the run asks for, and what the cleaner did.

    Attributes:
        variant: keep, or the variant that is wanted: zh-Hans, zh-Hant.
        groups: a file of conversion groups beside our own (`glossary.groups_of`); empty: none.
        converted: set by a cleaner that has brought text and title to `variant` itself.
        taken: what is taken out of the document, by name.
        measured: figures of the document that the report sums by source.
    """

    variant: str = "keep"
    groups: str = ""
    converted: bool = False
    taken: Taken = field(default_factory=Taken)
    measured: Counter[str] = field(default_factory=Counter)

    @property
    def wanted(self) -> str:
        """The variant that is wanted, empty for keep."""
        return "" if self.variant == "keep" else self.variant
