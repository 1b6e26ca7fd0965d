"""Sends real Chinese data of every kind through the line and checks what must hold of each output.

    python -m bench.corpus_data --data FOLDER [--only wiki laws ...] [--workers N]

FOLDER holds the files that INPUTS names (their licences forbid a copy in the project). For each: the books close
(read = kept + dropped by reason; characters read = kept + taken out by name + dropped), and no text that was kept holds
a private-use character, half a `-{ }-` or a raw template. A file that is not there is an error.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.measure import ROOT, environment
from megadec.common.config import parse
from megadec.common.errors import ConfigError, run_main
from megadec.corpus.document import read_documents

# Name: the file below FOLDER, and how it is read.
INPUTS = {
    "wiki": ("zhwiki/zhwiki-sample-pages-articles.xml.bz2", "--source zhwiki"),
    "wiki-hans": ("zhwiki/zhwiki-sample-pages-articles.xml.bz2", "--source zhwiki --variant zh-Hans"),
    "wiki-hant": ("zhwiki/zhwiki-sample-pages-articles.xml.bz2", "--source zhwiki --variant zh-Hant"),
    "wiki-multistream": ("zhwiki/zhwiki-sample-pages-articles-multistream.xml.bz2", "--source zhwiki"),
    "wiki-extracted": ("zhwiki/extracted.jsonl.xz", "--source wikiextractor"),
    "cmrc": ("zhwiki/cmrc2018_dev.json.xz", "--source wikiextractor"),
    "drcd": ("zhwiki/DRCD_dev.json.xz", "--source wikiextractor"),
    "articles": ("thucnews/articles/sogou_folders.tar.xz", "--source thucnews --encoding auto"),
    "articles-csv": (
        "thucnews/articles/thucnews_14x5.csv",
        "--source comments --filter.rules article --encoding auto",
    ),
    "titles": ("thucnews/titles/train.txt", "--source thucnews"),
    "news": ("news/xinwenlianbo_2022-2025.tar.xz", "--source markdown --split_level 2"),
    "laws": ("laws/laws.tar.xz", "--source markdown"),
    "classical": ("pairs/classical.txt.xz", "--source text --lines_per_document 50"),
    "modern": ("pairs/modern.txt.xz", "--source text --lines_per_document 50"),
    "hotels": ("comments/ChnSentiCorp_htl_all.csv", "--source comments --encoding auto"),
    "take-away": ("comments/waimai_10k.csv", "--source comments --encoding auto"),
    "shopping": ("comments/online_shopping_10_cats.zip", "--source comments --encoding auto"),
    "gb18030": ("encodings/gbk-folders.tar.xz", "--source thucnews --encoding auto --filter.rules short"),
    "sgml": ("encodings/sohu-sgml.tar.xz", "--source sgml --encoding auto"),
    "oi-wiki": ("mixed/oi-wiki.tar.xz", "--source markdown --filter.rules technical"),
    "products": ("tasks/product-titles.tar.xz", "--source thucnews --filter.rules short"),
}
_NEVER = {
    "private-use characters": re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]"),
    "half conversions": re.compile(r"-\{|\}-"),
    "raw templates": re.compile(r"\{\{[^{}]*\}\}"),
}
# Formulas and code hold braces of their own.
BRACES_ARE_TEXT = ("oi-wiki",)


@dataclass(frozen=True)
class DataOptions:
    """data: folder of the files in INPUTS. only: some of them; none: all. workers: processes; 0: one a processor."""

    data: Path
    only: tuple[str, ...] = ()
    workers: int = 0


def check(name: str, options: DataOptions) -> dict[str, Any]:
    """One input through `tools/prepare.py`, and what was found."""
    path, how = INPUTS[name]
    with tempfile.TemporaryDirectory() as folder:
        documents = Path(folder) / f"{name}.parquet"
        command: list[str | Path] = [
            sys.executable,
            ROOT / "tools" / "prepare.py",
            *how.split(),
            "--input",
            options.data / path,
        ]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--input", options.data / path, "--documents", documents, "--workers", str(options.workers)],
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        found: dict[str, Any] = {"status": done.returncode, "seconds": round(time.perf_counter() - began, 1)}
        if done.returncode:
            return found | {"error": done.stderr.strip().splitlines()[-1:]}
        report = json.loads(documents.with_suffix(".report.json").read_text("utf-8"))["report"]
        return found | _books(report) | {"found": dict(_found(name, documents))}


def _books(report: dict[str, Any]) -> dict[str, Any]:
    """Documents and characters that the report does not explain, and its largest figures."""
    books = report["sources"].values()
    missing = dict.fromkeys(("documents", "characters"), 0)
    for unit in missing:
        for counts in books:
            lost = sum(part[unit] for part in counts["dropped"].values())
            missing[unit] += counts["read"][unit] - counts["kept"][unit] - counts["held_out"][unit] - lost
            if unit == "characters":
                missing[unit] -= sum(part[unit] for part in counts["taken"].values())
    return {
        "unexplained": missing,
        "read": sum(counts["read"]["documents"] for counts in books),
        "kept": sum(counts["kept"]["documents"] for counts in books),
        "dropped": {reason: counts["documents"] for reason, counts in report["dropped"].items()},
        "taken": {taken: counts["characters"] for taken, counts in report["taken"].items()},
    }


def _found(name: str, documents: Path) -> Iterator[tuple[str, int]]:
    """What must not be in a text, and in how many it is."""
    counts: Counter[str] = Counter()
    for document in read_documents([documents]):
        for what, pattern in _NEVER.items():
            if what == "private-use characters" or name not in BRACES_ARE_TEXT:
                counts[what] += bool(pattern.search(f"{document.title}\n{document.text}"))
    yield from counts.items()


def main(argv: Sequence[str]) -> None:
    """Print JSON."""
    options = parse(DataOptions, argv, description=(__doc__ or "").splitlines()[0])
    for name in options.only:
        if name not in INPUTS:
            raise ConfigError(f"only={name}: known are {', '.join(INPUTS)}")
    results = {name: check(name, options) for name in options.only or INPUTS}
    bars = {
        "all_end_well": all(result["status"] == 0 for result in results.values()),
        "books_close": all(not any(result.get("unexplained", {"": 1}).values()) for result in results.values()),
        "nothing_left_in_texts": all(not any(result.get("found", {"": 1}).values()) for result in results.values()),
    }
    print(json.dumps({"environment": environment(), "results": results, "bars": bars}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    run_main(main)
