"""Counts what happened to the documents of a run, by source and by reason, with a few samples of what was dropped.

Each process fills a report of its own and the parent merges them.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import Any

from megadec.corpus.document import Document

SAMPLES_PER_REASON = 3
SAMPLE_CHARACTERS = 60


class CorpusReport:
    """Counts of documents read, kept and dropped. Picklable; `merge` adds another report's counts to this one."""

    def __init__(self) -> None:
        self.documents_read = 0
        self.kept: Counter[str] = Counter()
        self.kept_characters: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.dropped_characters: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}

    def read(self) -> None:
        """Count a document (or page, line: whatever the source calls one) that a reader met."""
        self.documents_read += 1

    def keep(self, document: Document) -> None:
        """Count a document that reached the end of the line."""
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

    def merge(self, other: CorpusReport) -> None:
        """Add the counts of `other`; its samples fill what room there is."""
        self.documents_read += other.documents_read
        for name in ("kept", "kept_characters", "dropped", "dropped_characters", "notes"):
            getattr(self, name).update(getattr(other, name))
        for reason, samples in other.samples.items():
            mine = self.samples.setdefault(reason, [])
            mine.extend(samples[: SAMPLES_PER_REASON - len(mine)])

    def to_dict(self) -> dict[str, Any]:
        """A JSON value with sorted keys: the same run gives the same bytes."""
        return {
            "read": self.documents_read,
            "kept": {
                source: {"documents": count, "characters": self.kept_characters[source]}
                for source, count in sorted(self.kept.items())
            },
            "dropped": {
                reason: {
                    "documents": count,
                    "characters": self.dropped_characters[reason],
                    "samples": self.samples.get(reason, []),
                }
                for reason, count in sorted(self.dropped.items())
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
            lines.extend(f"{'':>27} | {sample}" for sample in self.samples.get(reason, []))
        lines.extend(f"{count:>12,} {'':>14} {fact}" for fact, count in sorted(self.notes.items()))
        return "\n".join(lines)


def _sample(document: Document) -> str:
    words = f"{document.id}: {document.title} {document.text[: 2 * SAMPLE_CHARACTERS]}"
    shown = "".join("." if unicodedata.category(character)[0] == "C" else character for character in words)
    return " ".join(shown.split())[: SAMPLE_CHARACTERS + len(document.id)]
