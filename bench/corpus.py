"""The corpus line against its peers: extraction, near duplicates, tokenizing; memory, and hours for all of ZhWiki.

    python -m bench.corpus --data FOLDER [--quick true] [--only extraction] [--wikiextractor_python PYTHON]

In: a folder with zhwiki/*-pages-articles.xml.bz2 (a few real pages: they are repeated, with a title of its own for each
copy, to 100 MB of XML). Out: one JSON object: what each figure was made of, then `bars`. Peers are installed by the
user: `pip install wikiextractor==3.1.0`; one that is missing is named under `missing`, and its bar is left out.

CPU seconds are those of all processes that a command starts. To add a figure, write a function of `Given` and put it in
FIGURES.
"""

import bz2
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, NamedTuple

import psutil

from bench.corpus_tokenize import OURS, tokenize_figures
from bench.measure import ROOT, commit, environment
from megadec.common.config import parse
from megadec.common.errors import ConfigError, TrainingError, check_choice, run_main
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.reading import ReadOptions
from megadec.corpus.sources.text import read_markdown

FULL_BYTES, QUICK_BYTES = 100_000_000, 12_000_000
# zhwiki-*-pages-articles.xml.bz2 of 2024-2025 is 2.8 to 3.2 GB, its XML four times as much.
ZHWIKI_XML_BYTES = 13e9
CORES = (2, 16, 64)
# Runs the script after it, and writes the CPU seconds of its own process, without those that it starts, to a file.
_OWN_CPU_SECONDS = """
import atexit, pathlib, runpy, sys, time
own = pathlib.Path(sys.argv[1])
sys.argv = sys.argv[2:]
atexit.register(lambda: own.write_text(str(time.process_time())))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class CorpusBenchOptions:
    """What to measure, and on what.

    Attributes:
        data: a folder with the sources' samples: zhwiki/*-pages-articles.xml.bz2, laws/*.tar.xz, news/*.tar.xz.
        quick: 12 MB of XML and one round.
        only: one figure; default: all.
        rounds: so many times by turns, of which the median counts.
        wikiextractor_python: a Python that has WikiExtractor; default: this one.
    """

    data: Path
    quick: bool = False
    only: str = ""
    rounds: int = 3
    wikiextractor_python: Path = Path(sys.executable)

    def __post_init__(self) -> None:
        if self.only:
            check_choice("only", self.only, FIGURES)
        if self.rounds < 1:
            raise ConfigError(f"rounds={self.rounds}: at least 1")


class Given(NamedTuple):
    """What a figure is made from: the request, and a folder for files that come and go."""

    options: CorpusBenchOptions
    folder: Path

    @property
    def rounds(self) -> int:
        return 1 if self.options.quick else self.options.rounds

    @property
    def size_bytes(self) -> int:
        return QUICK_BYTES if self.options.quick else FULL_BYTES


class Figure(NamedTuple):
    """What was measured, its bars by name, and the peers that are not installed."""

    facts: dict[str, Any]
    bars: dict[str, float]
    missing: tuple[str, ...] = ()


class Spent(NamedTuple):
    """Seconds by the clock, and CPU seconds of a command and all that it started."""

    seconds: float
    cpu_seconds: float


def run(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> Spent:
    """Run a command from the repository's root to its end. Raises TrainingError with the end of what it said."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    seconds, after = time.perf_counter() - began, os.times()
    if done.returncode:
        raise TrainingError(f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Spent(seconds, cpu)


def repeated_dump(given: Given) -> Path:
    """The sample's pages as one XML of about `size_bytes`, made once; every copy has a title and a first line of its
    own, so that no two are the same."""
    made = given.folder / f"{given.size_bytes}.xml"
    if made.exists():
        return made
    found = sorted((given.options.data / "zhwiki").glob("*-pages-articles.xml.bz2"))
    if not found:
        raise ConfigError(f"data: {given.options.data} has no zhwiki/*-pages-articles.xml.bz2")
    xml = bz2.decompress(found[0].read_bytes()).decode("utf-8")
    start, end = xml.index("<page>"), xml.rindex("</page>") + len("</page>")
    pages = xml[start:end]
    with made.open("w", encoding="utf-8") as file:
        file.write(xml[:start])
        for copy in range(max(1, given.size_bytes // len(pages.encode()))):
            titled = pages.replace("</title>", f" {copy}</title>")
            file.write(re.sub(r"(<text[^>]*>)(?!#)", rf"\g<1>第{copy}份。", titled))
        file.write(xml[end:])
    return made


def extraction(given: Given) -> Figure:
    """Plain text of a dump in one process: ours against WikiExtractor's, by turns, in MB of XML a CPU second."""
    dump = repeated_dump(given)
    megabytes = dump.stat().st_size / 1e6
    output = given.folder / "extracted"
    commands: dict[str, list[str | Path]] = {
        "megadec": [sys.executable, "-m", "bench.corpus_extraction", dump, output.with_suffix(".jsonl")]
    }
    python = given.options.wikiextractor_python
    missing = subprocess.run([python, "-c", "import wikiextractor"], capture_output=True, check=False).returncode != 0
    if not missing:
        commands["wikiextractor"] = [
            python, "-m", "wikiextractor.WikiExtractor", dump, "--json", "--quiet", "--processes", "1", "-o", output
        ]  # fmt: skip
    spent: dict[str, list[Spent]] = {name: [] for name in commands}
    for number in range(given.rounds):
        for name in list(commands)[:: 1 if number % 2 else -1]:
            spent[name].append(run(commands[name]))
    speeds = {name: [megabytes / one.cpu_seconds for one in all_of] for name, all_of in spent.items()}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    facts = {"xml_megabytes": round(megabytes, 1), "megabytes_a_cpu_second": _rounded(medians), "rounds": speeds}
    if missing:
        return Figure(facts, {}, ("wikiextractor",))
    return Figure(facts, {"extraction_vs_wikiextractor": medians["megadec"] / medians["wikiextractor"]})


def whole_line(given: Given) -> Figure:
    """From the XML to shards with tools/prepare.py and two workers; hours for all of ZhWiki on so many cores.

    Hours are the greater of two: all CPU seconds shared by the cores, and the parent's own, which nothing shares. Both
    are CPU seconds, so that what else the machine does counts little. Near duplicates, which the copies are, stay: what
    finding them costs is a figure of its own.
    """
    dump = repeated_dump(given)
    megabytes = dump.stat().st_size / 1e6
    own = given.folder / "own_cpu_seconds"
    prepare: list[str | Path] = [sys.executable, "-c", _OWN_CPU_SECONDS, own, "tools/prepare.py"]
    request: list[str | Path] = [
        "--source", "zhwiki", "--input", dump, "--tokenizer", "tokenizer/zh_32k/tokenizer.model", "--overwrite", "true",
        "--output", given.folder / "shards", "--workers", "2", "--dedup.near", "false",
    ]  # fmt: skip
    start_up = run([*prepare, "--help"])
    own_start_up = float(own.read_text())
    spent = run([*prepare, *request])
    # Each worker starts like the parent; a long run forgets it.
    cpu, parent = spent.cpu_seconds - 3 * start_up.cpu_seconds, float(own.read_text()) - own_start_up
    whole = ZHWIKI_XML_BYTES / 1e6 / megabytes / 3600
    hours = {f"zhwiki_hours_on_{cores}_cores": max(cpu / cores, parent) * whole for cores in CORES}
    facts = {
        "xml_megabytes": round(megabytes, 1),
        **_rounded({
            "megabytes_a_second": megabytes / spent.seconds,
            "megabytes_a_cpu_second": megabytes / cpu,
            "megabytes_a_cpu_second_of_the_parent": megabytes / parent,
        }),
        "zhwiki_xml_gigabytes": ZHWIKI_XML_BYTES / 1e9,
    }  # fmt: skip
    return Figure(facts, hours)


def prose(given: Given) -> Iterator[Document]:
    """Statutes and news as they lie in the sample."""
    paths = [path for folder in ("laws", "news") for path in sorted((given.options.data / folder).glob("*.tar.*"))]
    if not paths:
        raise ConfigError(f"data: {given.options.data} has no laws/*.tar.* and news/*.tar.*")
    return chain.from_iterable(read_markdown(path, CorpusReport(), ReadOptions()) for path in paths)


def near_duplicates(given: Given) -> Figure:
    """Near duplicates among statutes and news, found by ours and by datasketch."""
    if find_spec("datasketch") is None:
        return Figure({}, {}, ("datasketch",))
    from bench.near_duplicates import near_duplicates_vs_datasketch

    facts = near_duplicates_vs_datasketch(list(islice(prose(given), 1500 if given.options.quick else None)))
    usual = facts["datasketch"]["128"]
    bars = {
        "near_duplicates_vs_datasketch": usual["times_as_fast"],
        "near_duplicates_pairs_of_datasketch": usual["also_ours_fraction"],
    }
    return Figure(facts, bars)


def tokenizing(given: Given) -> Figure:
    """Statutes and news in one process: ours, as shards are written, against the plain loop over sentencepiece."""
    documents = list(islice(prose(given), 500 if given.options.quick else 3000))
    facts = tokenize_figures(documents, Tokenizer.load(ROOT / "tokenizer" / "zh_32k"), given.rounds)
    return Figure(facts, {"tokenizing_vs_sentencepiece": facts["cases"][OURS]["speed_ratio"]})


def memory(given: Given) -> Figure:
    """Peak memory of the command and of its largest worker on 100 MB and on ten times as much: documents to shards,
    with near duplicates removed. Documents are sentences of statutes and news, drawn anew for each."""
    sizes = [given.size_bytes, 10 * given.size_bytes]
    peaks = {size: _peaks(given, size) for size in sizes}
    growth = {f"{who}_memory_growth": peaks[sizes[1]][who] / peaks[sizes[0]][who] for who in ("command", "worker")}
    return Figure({"peak_bytes_by_input_bytes": peaks}, growth)


def _peaks(given: Given, size_bytes: int) -> dict[str, int]:
    texts = given.folder / f"{size_bytes}.jsonl"
    sentences = [
        line for document in islice(prose(given), 2000) for line in document.text.splitlines() if len(line) > 20
    ]
    draw = random.Random(0)
    with texts.open("w", encoding="utf-8") as file:
        while file.tell() < size_bytes:
            file.write(json.dumps({"text": "\n".join(draw.choices(sentences, k=30))}, ensure_ascii=False) + "\n")
    command = [
        sys.executable, "tools/prepare.py", "--source", "jsonl", "--input", texts, "--workers", "2", "--output",
        given.folder / f"{size_bytes}.shards", "--tokenizer", "tokenizer/zh_32k/tokenizer.model",
    ]  # fmt: skip
    peaks = {"command": 0, "worker": 0}
    with psutil.Popen([str(part) for part in command], cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL) as process:
        while process.poll() is None:
            for one in [process, *process.children(recursive=True)]:
                with suppress(psutil.Error):
                    who = "command" if one is process else "worker"
                    peaks[who] = max(peaks[who], one.memory_info().rss)
            time.sleep(0.1)
    if process.returncode:
        raise TrainingError(f"tools/prepare.py ended with {process.returncode} on {texts}")
    texts.unlink()
    return peaks


FIGURES: dict[str, Callable[[Given], Figure]] = {
    "extraction": extraction,
    "near_duplicates": near_duplicates,
    "tokenizing": tokenizing,
    "memory": memory,
    "whole_line": whole_line,
}


def measure(options: CorpusBenchOptions) -> dict[str, Any]:
    """All figures, or the one that is asked for."""
    names = [options.only] if options.only else list(FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        figures = {name: FIGURES[name](Given(options, Path(folder))) for name in names}
    return {
        "bench": "corpus",
        "environment": environment(),
        "commit": commit(),
        **{name: figure.facts for name, figure in figures.items()},
        "missing": [peer for figure in figures.values() for peer in figure.missing],
        "bars": _rounded({name: value for figure in figures.values() for name, value in figure.bars.items()}),
    }


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}


def main(argv: Sequence[str]) -> None:
    """The command line."""
    options = parse(CorpusBenchOptions, argv, description="Time the corpus line and its peers.", program="bench.corpus")
    print(json.dumps(measure(options), indent=1))


if __name__ == "__main__":
    run_main(main)
