"""Counts what happened to the documents and characters of a run, by source and by name; the books close.

Documents read = kept + held out + dropped by reason. Characters read = characters of what is kept or held out + what
was taken out of those by name + the raw characters of what was dropped. A document has the characters of its title and
text.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import takewhile
from typing import Any, Self

from megadec.corpus.clean.context import Taken
from megadec.corpus.document import Document

SAMPLES_PER_REASON = 3
SAMPLE_CHARACTERS = 60
PAIR_CHARACTERS = 300
UNKNOWN_REPORTED, UNKNOWN_SHOWN = 200, 10  # names of templates without a rule
READING = "reading"

OnDrop = Callable[[Document, str, str, int], None]


def size_of(document: Document) -> int:
    """The characters of a document: those of its title and its text."""
    return len(document.title) + len(document.text)


def writable(text: str) -> str:
    """Text that files can hold: half a surrogate pair, which JSON may give, is none."""
    return text.encode("utf-8", "replace").decode()


@dataclass
class SourceCounts:
    """The books of one source. `raw_characters` had, before cleaning, what is kept or held out."""

    kept: int = 0
    kept_characters: int = 0
    held_out: int = 0
    held_out_characters: int = 0
    raw_characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_characters: Counter[str] = field(default_factory=Counter)
    taken: Taken = field(default_factory=Taken)
    measured: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """Documents (or pages, lines: whatever the source calls one) whose fate is decided."""
        return self.kept + self.held_out + self.dropped.total()

    @property
    def characters_read(self) -> int:
        """Raw characters of all documents."""
        return self.raw_characters + self.dropped_characters.total()

    @property
    def unexplained_characters(self) -> int:
        """0 where the books close."""
        left = self.kept_characters + self.held_out_characters + self.taken.characters.total()
        return self.raw_characters - left

    def merge(self, other: Self) -> None:
        """Add the counts of `other`."""
        for name in ("kept", "kept_characters", "held_out", "held_out_characters", "raw_characters"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("dropped", "dropped_characters", "measured"):
            getattr(self, name).update(getattr(other, name))
        self.taken.merge(other.taken)

    def to_dict(self) -> dict[str, Any]:
        """A JSON value with sorted keys."""
        return {
            "read": {"documents": self.read, "characters": self.characters_read},
            "kept": {"documents": self.kept, "characters": self.kept_characters},
            "held_out": {"documents": self.held_out, "characters": self.held_out_characters},
            "dropped": _counts(self.dropped, self.dropped_characters),
            "taken": _taken(self.taken),
            "measured": dict(sorted(self.measured.items())),
        }


@dataclass
class CorpusReport:
    """Counts of a run or of a part of it; `merge` adds those of another part.

    name: what every document's source is called, where the run gives one. pairs: documents before and after what was
    taken out, by its name. details: of the run as a whole, such as how many clusters of duplicates it has. on_drop:
    told of every dropped document, with the reason, the stage and its raw characters. hide: what a document is made
    into before any of its text is shown, where the run masks private data.
    """

    name: str = ""
    sources: dict[str, SourceCounts] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)
    pairs: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    on_drop: OnDrop | None = field(default=None, repr=False, compare=False)
    hide: Callable[[Document], Document] | None = field(default=None, repr=False, compare=False)

    @property
    def documents_read(self) -> int:
        """Documents of all sources whose fate is decided."""
        return sum(counts.read for counts in self.sources.values())

    @property
    def kept(self) -> Counter[str]:
        """Documents kept, by source."""
        return Counter({name: counts.kept for name, counts in self.sources.items() if counts.kept})

    @property
    def dropped(self) -> Counter[str]:
        """Documents dropped, by reason."""
        return sum((counts.dropped for counts in self.sources.values()), Counter())

    @property
    def held_out(self) -> int:
        """Documents held out."""
        return sum(counts.held_out for counts in self.sources.values())

    def of(self, source: str) -> SourceCounts:
        """The books of a source, or of the one that the run calls all of them."""
        return self.sources.setdefault(self.name or source, SourceCounts())

    def keep(
        self, document: Document, raw_characters: int | None = None, taken: Taken | None = None, held_out: bool = False
    ) -> None:
        """Count a document that reached the end of the pipeline, for the training or the held-out set.

        raw_characters: what it had before cleaning, if that was more or less. taken: what was taken out of it.
        """
        counts, size = self.of(document.source), size_of(document)
        part = "held_out" if held_out else "kept"
        setattr(counts, part, getattr(counts, part) + 1)
        setattr(counts, f"{part}_characters", getattr(counts, f"{part}_characters") + size)
        counts.raw_characters += size if raw_characters is None else raw_characters
        if taken:
            counts.taken.merge(taken)

    def drop(self, document: Document, reason: str, stage: str = READING, raw_characters: int | None = None) -> None:
        """Count a document that was left out, and keep a short sample of it while there are few for this reason."""
        counts = self.of(document.source)
        counts.dropped[reason] += 1
        characters = size_of(document) if raw_characters is None else raw_characters
        counts.dropped_characters[reason] += characters
        document = self.hide(document) if self.hide else document
        samples = self.samples.setdefault(reason, [])
        if len(samples) < SAMPLES_PER_REASON:
            samples.append(_sample(document))
        if self.on_drop:
            self.on_drop(document, reason, stage, characters)

    def show(self, name: str, before: Document, after: Document) -> None:
        """Keep the beginning of a document before and after a `name` was taken out of it, while there are few."""
        shown = self.pairs.setdefault(name, [])
        if len(shown) < SAMPLES_PER_REASON:
            before = self.hide(before) if self.hide else before
            alike = takewhile(lambda pair: pair[0] == pair[1], zip(before.text, after.text, strict=False))
            start = max(0, sum(1 for _ in alike) - PAIR_CHARACTERS // 10)  # where they begin to differ
            texts = {"before": before.text, "after": after.text}
            shown.append(
                {"id": after.id, **{k: writable(text[start : start + PAIR_CHARACTERS]) for k, text in texts.items()}}
            )

    def note(self, fact: str) -> None:
        """Count something that changed no document's fate, for example the encoding that a file was found in."""
        self.notes[fact] += 1

    def merge(self, other: Self) -> None:
        """Add the counts of `other`; its samples fill what room there is."""
        for source, counts in other.sources.items():
            self.of(source).merge(counts)
        self.notes.update(other.notes)
        for mine, theirs in ((self.samples, other.samples), (self.pairs, other.pairs)):
            for name, shown in theirs.items():
                kept: list[Any] = mine.setdefault(name, [])  # type: ignore[arg-type]
                kept.extend(shown[: SAMPLES_PER_REASON - len(kept)])

    def to_dict(self) -> dict[str, Any]:
        """A JSON value with sorted keys: the same run gives the same bytes."""
        total = SourceCounts()
        for counts in self.sources.values():
            total.merge(counts)
        kept = {name: counts for name, counts in sorted(self.sources.items()) if counts.kept}
        return {
            "read": self.documents_read,
            "kept": {name: {"documents": c.kept, "characters": c.kept_characters} for name, c in kept.items()},
            "dropped": {
                reason: {**counts, "samples": self.samples.get(reason, [])}
                for reason, counts in _counts(total.dropped, total.dropped_characters).items()
            },
            "taken": _taken(total.taken),
            "unknown_templates": dict(_most_frequent(total.taken.unknown, UNKNOWN_REPORTED)),
            "sources": {name: counts.to_dict() for name, counts in sorted(self.sources.items())},
            "pairs": dict(sorted(self.pairs.items())),
            "notes": dict(sorted(self.notes.items())),
            "details": self.details,
        }

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs, as plain values for a JSON file."""
        names = (f.name for f in fields(self) if f.name not in ("on_drop", "hide", "sources"))
        sources = {name: {**vars(counts), "taken": vars(counts.taken)} for name, counts in self.sources.items()}
        return {**{name: getattr(self, name) for name in names}, "sources": sources}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """The report that `state` was taken from."""
        plain = {name: state[name] for name in ("name", "samples", "pairs", "details")}
        report = cls(**plain, notes=Counter(state["notes"]))
        for name, values in state["sources"].items():
            counters = {key: Counter(values[key]) for key in ("dropped", "dropped_characters", "measured")}
            taken = Taken(**{key: Counter(counts) for key, counts in values["taken"].items()})
            report.sources[name] = SourceCounts(**{**values, **counters, "taken": taken})
        return report

    def render(self) -> str:
        """The same as a table for a terminal: a line each source and reason, samples under the reasons."""
        lines, samples = [f"{'documents':>12} {'characters':>14}"], dict(self.samples)
        for source, counts in sorted(self.sources.items()):
            lines.append(f"{counts.read:>12,} {counts.characters_read:>14,} read from {source}")
            lines.append(f"{counts.kept:>12,} {counts.kept_characters:>14,} kept from {source}")
            if counts.held_out:
                lines.append(f"{counts.held_out:>12,} {counts.held_out_characters:>14,} held out from {source}")
            letters = Counter({n.split()[1]: count for n, count in counts.measured.items() if n.startswith("letters ")})
            if letters:
                told = ", ".join(f"{name} {count / letters.total():.1%}" for name, count in letters.most_common())
                lines.append(f"{'':>12} {letters.total():>14,} letters: {told}")
            for name, characters in counts.taken.characters.most_common():
                lines.append(f"{'':>12} {characters:>14,} taken out: {name} ({counts.taken.pieces[name]:,})")
            for reason, count in counts.dropped.most_common():
                lines.append(f"{count:>12,} {counts.dropped_characters[reason]:>14,} dropped: {reason}")
                lines.extend(f"{'':>27} | {sample}" for sample in samples.pop(reason, ()))
            for name, count in _most_frequent(counts.taken.unknown, UNKNOWN_SHOWN):
                lines.append(f"{count:>12,} {'':>14} no rule for the template in a sentence: {name}")
        lines.extend(f"{count:>12,} {'':>14} {fact}" for fact, count in sorted(self.notes.items()))
        if self.dropped["too_short"] > self.documents_read / 2:
            lines.append(
                "most documents are too short for articles: for titles and comments there is --filter.rules short"
            )
        return "\n".join(lines)


def _counts(documents: Counter[str], characters: Counter[str]) -> dict[str, dict[str, Any]]:
    return {name: {"documents": count, "characters": characters[name]} for name, count in sorted(documents.items())}


def _taken(taken: Taken) -> dict[str, dict[str, int]]:
    return {
        name: {"pieces": count, "characters": taken.characters[name]} for name, count in sorted(taken.pieces.items())
    }


def _most_frequent(counts: Counter[str], most: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _sample(document: Document) -> str:
    words = f"{document.id}: {document.title} {document.text[: 2 * SAMPLE_CHARACTERS]}"
    shown = "".join("." if unicodedata.category(character)[0] == "C" else character for character in words)
    return " ".join(shown.split())[: SAMPLE_CHARACTERS + len(document.id)]
