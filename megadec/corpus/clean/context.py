"""What a cleaner is told of its run, and where it says what it took out of a document."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Taken:
    """What was taken out of documents, by name: how many pieces (a table, a reference) and how many characters.

    A name whose characters are negative added some: {{date}} shows more than it is written with.
    """

    pieces: Counter[str] = field(default_factory=Counter)
    characters: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, characters: int, pieces: int = 1) -> None:
        """Count `pieces` of a kind that had so many characters in all."""
        self.pieces[name] += pieces
        self.characters[name] += characters

    def merge(self, other: Self) -> None:
        """Add the counts of `other`."""
        self.pieces.update(other.pieces)
        self.characters.update(other.characters)


@dataclass
class CleanContext:
    """One document's cleaning: the variant that the run asks for (keep, zh-Hans, zh-Hant), what is taken out, and
    figures of the document that the report sums by source."""

    variant: str = "keep"
    taken: Taken = field(default_factory=Taken)
    measured: Counter[str] = field(default_factory=Counter)
