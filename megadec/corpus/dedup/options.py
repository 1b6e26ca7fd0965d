"""What a run is told about duplicates."""

from dataclasses import dataclass
from pathlib import Path

from megadec.common.errors import ConfigError, check_choice, check_range

KEEP = ("longest", "newest", "first")


@dataclass(frozen=True)
class DedupOptions:
    """Which documents count as duplicates, and which one of them stays.

    Attributes:
        near: also drop near duplicates: texts that share most of their 5-character shingles (MinHash).
        threshold: near duplicates share at least this part of their shingles (Jaccard similarity).
        min_characters: with fewer letters and digits a text is only compared as a whole, symbols included.
        keep: which near duplicate stays: the longest, the newest (by the date in title, id or address), or the first.
        against: documents of earlier runs (.parquet files, or folders of them) that count as seen before.
        evaluation_fraction: a document that holds this part of an evaluation text's 13-character n-grams is dropped.
    """

    near: bool = True
    threshold: float = 0.8
    min_characters: int = 100
    keep: str = "longest"
    against: tuple[Path, ...] = ()
    evaluation_fraction: float = 0.5


def check_dedup(options: DedupOptions) -> None:
    """Raises ConfigError for values that make no sense."""
    check_choice("dedup.keep", options.keep, KEEP)
    check_range(options, "dedup.", "threshold", least=0.5, most=1)
    check_range(options, "dedup.", "min_characters", least=20)
    check_range(options, "dedup.", "evaluation_fraction", above=0, most=1)
    if not options.near:
        for name in ("threshold", "keep"):
            value = getattr(options, name)
            if value != getattr(DedupOptions, name):
                raise ConfigError(f"dedup.{name}={value} is of near duplicates, and dedup.near=false looks for none")
