"""The command words: files of documents in; a folder with report.json, README.md, words.tsv and ngrams.tsv out."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import ConfigError, InputError, check_range
from megadec.common.files import whole_folder, write_json
from megadec.common.log import progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import read_documents
from megadec.corpus.words import report as words_report
from megadec.corpus.words.counting import Counting, SourceCounts, count_words
from megadec.corpus.words.segment import SegmentOptions, read_lines

MOST_SOURCES = 200
LARGEST_N = 5


@dataclass(frozen=True, kw_only=True)
class WordsOptions(SegmentOptions):
    """Statistics of the words of documents, by source.

    Attributes:
        input: files of documents (.parquet), as tools/prepare.py --documents writes them.
        output: folder for report.json, README.md, words.tsv and ngrams.tsv; new.
        by: what parts the documents: `source`, `label` or `variant`.
        ngrams: the longest n-grams of words that are counted; punctuation and newlines end one.
        coverage: for each number, which share of a source's words so many of the most frequent words of all cover.
        vocabulary: a file with a word a line, or first on its line, whose coverage is told too.
        tokenizer: a tokenizer.model or a model's folder, of which is told how it takes the words.
        stop_words: a file with a word a line; these are not counted, and end an n-gram.
        top: frequent words and keywords told of each source.
        listed: rows of words.tsv and ngrams.tsv.
        max_entries: different words, and n-grams of each n, that are kept of a source; with twice as many the rarest
            are forgotten, and the report says how far counts may be short.
        workers: processes that cut; 0: as many as there are processors.
    """

    input: tuple[Path, ...]
    output: Path
    by: Literal["source", "label", "variant"] = "source"
    ngrams: int = 2
    coverage: tuple[int, ...] = (1_000, 5_000, 10_000, 50_000)
    vocabulary: Path | None = None
    tokenizer: Path | None = None
    stop_words: Path | None = None
    top: int = 30
    listed: int = 100_000
    max_entries: int = 1_000_000
    workers: int = 0

    def __post_init__(self) -> None:
        if not self.input:
            raise ConfigError("input: no file was given")
        check_range(self, "", "ngrams", least=1, most=LARGEST_N)
        check_range(self, "", "top", "max_entries", least=1)
        check_range(self, "", "listed", "workers", least=0)
        if any(size < 1 for size in self.coverage):
            raise ConfigError(f"coverage={' '.join(map(str, self.coverage))}: a number of words is at least 1")


def describe_words(options: WordsOptions) -> dict[str, Any]:
    """Write the folder `options.output`; returns the report. Memory: `2 * max_entries` of each source and n.

    Raises ConfigError for a folder that exists, InputError for files that cannot be read and documents without words,
    MissingExtraError, TokenizerError.
    """
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    stop_words = frozenset(first_words(options.stop_words)) if options.stop_words else frozenset()
    vocabulary = frozenset(first_words(options.vocabulary)) if options.vocabulary else None
    options.open_segmenter()  # what is wrong with it is said before any text is read
    with whole_folder(options.output) as folder:
        documents = progress(read_documents(options.input), description="count words", unit="doc")
        counting = Counting(options.segment, options.by, options.ngrams, stop_words)
        workers = options.workers or len(os.sched_getaffinity(0))
        sources = count_words(documents, counting, options.max_entries, workers)
        _check(sources, options)
        report = _report(sources, options, vocabulary, tokenizer)
        write_json(folder / "report.json", report)
        (folder / "README.md").write_text(words_report.render(report), encoding="utf-8")
        _write_list(folder / "words.tsv", sources, (1,), options.listed)
        _write_list(folder / "ngrams.tsv", sources, range(2, options.ngrams + 1), options.listed)
    return report


def first_words(path: Path) -> list[str]:
    """What stands first on each line of a list, up to a tab or blank. Raises InputError where there is none."""
    words = [line.split()[0] for line in read_lines(path) if line.strip()]
    if not words:
        raise InputError(f"{path}: holds no word; a line begins with one")
    return words


def _check(sources: Mapping[str, SourceCounts], options: WordsOptions) -> None:
    paths = ", ".join(map(str, options.input))
    if not any(source.words.total for source in sources.values()):
        raise InputError(f"{paths}: no words in {sum(source.documents for source in sources.values())} documents")
    if len(sources) > MOST_SOURCES:
        found = f"{len(sources)} values of {options.by}"
        raise InputError(f"{paths}: {found}, at most {MOST_SOURCES} are told")


def _report(
    sources: Mapping[str, SourceCounts],
    options: WordsOptions,
    vocabulary: frozenset[str] | None,
    tokenizer: Tokenizer | None,
) -> dict[str, Any]:
    ranked = [word for word, _ in words_report.together(sources)]
    known = {str(size): frozenset(ranked[:size]) for size in options.coverage}
    known |= {"vocabulary": vocabulary} if vocabulary is not None else {}
    pieces = words_report.pieces_of_words(sources, tokenizer) if tokenizer else {}
    marks = words_report.keywords(sources, options.top)
    return {
        "megadec": __version__,
        "segmenter": options.segmenter_described(),
        "options": to_dict(options),
        "by": options.by,
        "coverage_sizes": list(options.coverage),
        "vocabulary": len(vocabulary) if vocabulary is not None else None,
        "tokenizer": tokenizer.sha256 if tokenizer else None,
        "different_words": len(ranked),
        "sources": {
            name: {
                "documents": source.documents,
                "characters": source.characters,
                "stop_words": source.stopped,
                "ngrams": words_report.frequent(source, options.top),
                "coverage": {size: words_report.coverage(source, words) for size, words in known.items()},
                **({"tokenizer": pieces[name]} if pieces else {}),
                "keywords": marks[name],
            }
            for name, source in sources.items()
        },
    }


def _write_list(path: Path, sources: Mapping[str, SourceCounts], sizes: Sequence[int], most: int) -> None:
    """A word or n-gram, its count in all sources, and in each of them in the report's order, with tabs between."""
    with open(path, "w", encoding="utf-8") as file:
        for n in sizes:
            for gram, count in words_report.together(sources, n)[:most]:
                counts = [source.grams[n].counts[gram] for source in sources.values()]
                file.write("\t".join([gram, *map(str, (count, *counts))]) + "\n")


def main(argv: Sequence[str]) -> None:
    """Count what the command line asks for; README.md on standard output."""
    report = describe_words(parse(WordsOptions, argv, description="Statistics of words, by source."))
    print(words_report.render(report))
