"""Counts what happened to the documents of a run, by source and by reason, with a few samples of what was dropped.

Each process fills a report of its own and the parent merges them.
"""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self

from megadec.corpus.document import Document

SAMPLES_PER_REASON = 3
SAMPLE_CHARACTERS = 60
HELD_OUT = "documents held out"


@dataclass
class CorpusReport:
    """Counts of documents kept, dropped and held out. Picklable; `merge` adds another report's counts to this one."""

    kept: Counter[str] = field(default_factory=Counter)
    kept_characters: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_characters: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    @property
    def documents_read(self) -> int:
        """Documents (or pages, lines: whatever the source calls one) that a reader met and whose fate is decided."""
        return self.kept.total() + self.notes[HELD_OUT] + self.dropped.total()

    def keep(self, document: Document) -> None:
        """Count a document that reached the end of the pipeline."""
        self.kept[document.source] += 1
        self.kept_characters[document.source] += len(document.text)

    def drop(self, document: Document, reason: str) -> None:
        """Count a document that was left out, and keep a short sample of it while there are few for this reason."""
        self.dropped[reason] += 1
        self.dropped_characters[reason] += len(document.text)
        samples = self.samples.setdefault(reason, [])
        if len(samples) < SAMPLES_PER_REASON:
            samples.append(_sample(document))

    def note(self, fact: str) -> None:
        """Count something that changed no document's fate, for example the encoding that a file was found in."""
        self.notes[fact] += 1

    def merge(self, other: Self) -> None:
        """Add the counts of `other`; its samples fill what room there is."""
        for name in ("kept", "kept_characters", "dropped", "dropped_characters", "notes"):
            getattr(self, name).update(getattr(other, name))
        for reason, samples in other.samples.items():
            mine = self.samples.setdefault(reason, [])
            mine.extend(samples[: SAMPLES_PER_REASON - len(mine)])

    def to_dict(self) -> dict[str, Any]:
        """A JSON value with sorted keys: the same run gives the same bytes."""
        return {
            "read": self.documents_read,
            "kept": _counts(self.kept, self.kept_characters),
            "dropped": {
                reason: {**counts, "samples": self.samples[reason]}
                for reason, counts in _counts(self.dropped, self.dropped_characters).items()
            },
            "notes": dict(sorted(self.notes.items())),
        }

    def render(self) -> str:
        """The same as a table for a terminal: a line each source and reason, samples under the reasons."""
        lines = [f"{'documents':>12} {'characters':>14}", f"{self.documents_read:>12,} {'':>14} read"]
        for source, count in sorted(self.kept.items()):
            lines.append(f"{count:>12,} {self.kept_characters[source]:>14,} kept from {source}")
        for reason, count in self.dropped.most_common():
            lines.append(f"{count:>12,} {self.dropped_characters[reason]:>14,} dropped: {reason}")
            lines.extend(f"{'':>27} | {sample}" for sample in self.samples[reason])
        lines.extend(f"{count:>12,} {'':>14} {fact}" for fact, count in sorted(self.notes.items()))
        if self.dropped["too_short"] > self.documents_read / 2:
            lines.append(
                "most documents are too short for articles: for titles and comments there is --filter.rules short"
            )
        return "\n".join(lines)


def _counts(documents: Counter[str], characters: Counter[str]) -> dict[str, dict[str, Any]]:
    return {name: {"documents": count, "characters": characters[name]} for name, count in sorted(documents.items())}


def _sample(document: Document) -> str:
    words = f"{document.id}: {document.title} {document.text[: 2 * SAMPLE_CHARACTERS]}"
    shown = "".join("." if unicodedata.category(character)[0] == "C" else character for character in words)
    return " ".join(shown.split())[: SAMPLE_CHARACTERS + len(document.id)]
