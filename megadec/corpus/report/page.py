"""The report of a data set as one HTML page that needs nothing else: report.json, its documents and its index in.

The figures that need the text (lengths, share of Chinese characters, licences) come from one pass over the documents in
pyarrow, in constant memory.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from megadec import __version__
from megadec.common.errors import MissingExtraError
from megadec.common.files import whole_file
from megadec.corpus.words.segment import SegmentOptions, is_word

SHORTEST_COLUMN = 5  # documents of up to 2**5 characters share the first column
WORDS_DOCUMENTS, WORDS_CHARACTERS, WORDS_SHOWN = 200, 1000, 100
LARGEST_CLUSTERS, TITLES_SHOWN = 12, 6
_READING = ("malformed_line", "undecodable_file", "empty", "disambiguation", "redirect")
_DUPLICATES = ("duplicate", "near_duplicate", "excluded", "contaminated")


@dataclass
class Measured:
    """Documents by length (the column of 2**n characters), by tenth of Chinese characters, by licence; some words."""

    lengths: Counter[int] = field(default_factory=Counter)
    han_tenths: Counter[int] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)


def measure_documents(tables: Iterable[pa.Table], documents: int) -> Measured:
    """Measure the documents of `tables`, which are so many in all; words are those of some, evenly chosen."""
    measured = Measured()
    stride, place = -(-documents // WORDS_DOCUMENTS) or 1, 0
    for table in tables:
        text = table["text"]
        dense = pc.replace_substring_regex(text, r"\s+", "")
        visible = pc.utf8_length(dense).to_numpy()
        others = pc.utf8_length(pc.replace_substring_regex(dense, r"\p{Han}+", "")).to_numpy()
        tenths = 10 * (visible - others) // np.maximum(visible, 1)
        columns = np.log2(np.maximum(pc.utf8_length(text).to_numpy(), 1)).astype(int)
        measured.han_tenths.update(np.minimum(tenths, 9).tolist())
        measured.lengths.update(np.maximum(columns, SHORTEST_COLUMN).tolist())
        measured.licences.update(table["licence"].to_pylist())
        for row in range(-place % stride, len(table), stride):
            measured.words.update(_words_of(text[row].as_py()[:WORDS_CHARACTERS]))
        place += len(table)
    return measured


def _words_of(text: str) -> list[str]:
    """The words of two or more characters of a text; none where no segmenter is installed."""
    try:
        segmenter = SegmentOptions().open_segmenter()
    except MissingExtraError:
        return []
    return [word for word in segmenter.cut(text) if len(word) > 1 and is_word(word)]


def write_page(
    page: Path,
    name: str,
    report: Mapping[str, Any],
    measured: Measured,
    index: Mapping[str, Any],
    clusters: Path,
) -> None:
    """Write the page of a data set.

    report: `CorpusReport.to_dict()`. index: of its shards, for tokens by source; empty where there are none. clusters:
    the file that `write_clusters` wrote.
    """
    data = {**page_data(name, report, measured, index), "clusters": _clusters(clusters)}
    # No text may end the script element that holds it.
    shown = json.dumps(data, ensure_ascii=False, sort_keys=True).replace("<", "\\u003c")
    template = (files("megadec.corpus.report") / "page.html").read_text("utf-8")
    with whole_file(page) as file:
        file.write(template.replace("__DATA__", shown, 1).encode("utf-8"))


def page_data(
    name: str,
    report: Mapping[str, Any],
    measured: Measured,
    index: Mapping[str, Any],
) -> dict[str, Any]:
    """What the page draws, as a JSON value."""
    sources = {source: counts["kept"] for source, counts in report["sources"].items() if counts["kept"]["documents"]}
    tokens = {source: counts["tokens"] for source, counts in index.get("sources", {}).items()}
    totals = [[unit, sum(kept[unit] for kept in sources.values())] for unit in ("documents", "characters")]
    judged = sum((Counter(counts["measured"]) for counts in report["sources"].values()), Counter[str]())
    quality = [judged[f"quality from {step / 20:.2f}"] for step in range(20)]
    lengths = range(min(measured.lengths, default=0), max(measured.lengths, default=0) + 1)
    return {
        "name": name,
        "pipeline_version": __version__,
        "totals": [*totals, ["tokens", sum(tokens.values())]] if tokens else totals,
        "stages": _stages(report),
        "dropped": sorted(
            ({"reason": reason, **counts} for reason, counts in report["dropped"].items()),
            key=lambda drop: -int(drop["documents"]),
        ),
        "taken": sorted(
            (
                {"name": taken, **counts, "samples": report["pairs"].get(taken, [])}
                for taken, counts in report["taken"].items()
            ),
            key=lambda taken: -int(taken["characters"]),
        ),
        "lengths": [[2**column, measured.lengths[column]] for column in lengths],
        "han": [measured.han_tenths[tenth] for tenth in range(10)],
        "letters": [
            {"name": name.removeprefix("letters "), "characters": count}
            for name, count in judged.most_common()
            if name.startswith("letters ")
        ],
        "quality": quality if any(quality) else [],
        "sources": [
            {"name": source, **kept, **({"tokens": tokens[source]} if source in tokens else {})}
            for source, kept in sources.items()
        ],
        "licences": [{"name": licence, "documents": count} for licence, count in measured.licences.most_common()],
        "words": measured.words.most_common(WORDS_SHOWN),
        "notes": list(report["notes"].items()),
    }


def _stages(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Documents and characters that are left after each stage; characters are raw ones until markup is taken out."""
    books = report["sources"].values()
    left = {unit: sum(counts["read"][unit] for counts in books) for unit in ("documents", "characters")}
    stages = [{"name": "read", **left}]
    kinds = {"cleaned": _READING, "judged": None, "single": _DUPLICATES}
    known = {*_READING, *_DUPLICATES}
    for stage, reasons in kinds.items():
        for reason, counts in report["dropped"].items():
            kind = reason.partition(":")[0]
            if kind in reasons if reasons else kind not in known:
                left = {unit: left[unit] - counts[unit] for unit in left}
        stages.append({"name": stage, **left})
    for stage, parts in (("text", ("kept", "held_out")), ("kept", ("kept",))):
        stages.append({"name": stage, **{unit: sum(c[part][unit] for c in books for part in parts) for unit in left}})
    return stages


def _clusters(path: Path) -> dict[str, Any]:
    """Clusters by size, and the titles of the largest ones."""
    table = pq.read_table(path, columns=["cluster", "id", "title"])
    sizes = Counter(table.column("cluster").to_pylist())
    bounds = ((2, 2), (3, 3), (4, 7), (8, 15), (16, 63), (64, None))
    by_size = [
        [str(least) if least == most else f"{least}–{most}" if most else f"{least}+", _between(sizes, least, most)]
        for least, most in bounds
    ]
    largest = [
        {"size": size, "titles": _titles(table.filter(pc.field("cluster") == cluster))}
        for cluster, size in sizes.most_common(LARGEST_CLUSTERS)
    ]
    return {"sizes": by_size, "largest": largest}


def _between(sizes: Counter[int], least: int, most: int | None) -> int:
    return sum(least <= size and (most is None or size <= most) for size in sizes.values())


def _titles(table: pa.Table) -> list[str]:
    rows = table.slice(0, TITLES_SHOWN).to_pylist()
    return [row["title"] or row["id"] for row in rows]
