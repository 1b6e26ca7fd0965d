"""The whole line: raw files -> clean -> judged -> no duplicates -> documents in Parquet -> token shards.

In: options. Out: a file of documents, a data set of shards, or both, and a report of what was dropped and why.
Trade-off: documents go to disk once before they are tokenised, which costs their size for a while and lets one pass
feed the training and the held-out set in constant memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from megadec import __version__
from megadec.common.config import to_dict
from megadec.common.errors import ConfigError, InputError, suggest
from megadec.common.files import storage_errors, whole_file, write_json
from megadec.common.log import progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup import ExactDuplicates, excluded_digests, is_held_out
from megadec.corpus.document import Document, DocumentsWriter, read_documents
from megadec.corpus.filter import FilterOptions, choose_rules
from megadec.corpus.line import Recipe, cleaned, without_duplicates
from megadec.corpus.report import Report
from megadec.corpus.shards import write_shards
from megadec.corpus.sources import Source, find_source
from megadec.corpus.sources.encoding import check_encoding
from megadec.corpus.sources.parquet import is_prepared
from megadec.corpus.sources.reading import ReadOptions

VARIANTS = ("keep", "zh-Hans", "zh-Hant")
LARGEST_DEFAULT_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(ReadOptions):
    """One run of the corpus line, beside how its files are read.

    Attributes:
        source: the kind of raw input: zhwiki, wikiextractor, thucnews, comments, jsonl, parquet, text, markdown, sgml.
        input: files or folders of that kind.
        documents: folder for NAME.parquet and NAME.report.json, or the .parquet file itself.
        tokenizer: tokenizer.model; with it shards are written.
        output: folder for the shards.
        held_out_fraction: share of the documents that is kept from training, chosen by a hash of their text.
        held_out: folder for that share: shards with a tokenizer, otherwise NAME.parquet.
        exclude_texts: files whose texts must not be learned: documents in .parquet, or a text a line.
        name: what the documents' source is called; default: the source.
        licence: their licence, where the source does not say.
        variant: keep, or convert all to zh-Hans or zh-Hant.
        workers: processes that clean; 0: as many as there are processors.
        overwrite: replace what is there.
        filter: quality rules and their thresholds.
    """

    source: str
    input: tuple[Path, ...]
    documents: Path | None = None
    tokenizer: Path | None = None
    output: Path | None = None
    held_out_fraction: float = 0.0
    held_out: Path | None = None
    exclude_texts: tuple[Path, ...] = ()
    name: str = ""
    licence: str = ""
    variant: str = "keep"
    workers: int = 0
    overwrite: bool = False
    filter: FilterOptions = field(default_factory=FilterOptions)


@dataclass(frozen=True)
class Plan:
    """What was asked for, checked: where each result goes. None: it is not wanted."""

    source: Source
    recipe: Recipe
    workers: int
    tokenizer: Tokenizer | None
    documents_file: Path | None
    report_file: Path | None
    held_out_file: Path | None

    @property
    def files(self) -> list[Path]:
        return [file for file in (self.documents_file, self.report_file, self.held_out_file) if file]


def prepare(options: PrepareOptions) -> Report:
    """Run the line and write what `options` ask for; every result gets its name only when all of them are whole.

    Raises ConfigError for options that do not fit together or results that exist, InputError for input that cannot be
    read or of which nothing is left, StorageError for the disk; then no result is left under its name.
    """
    plan = plan_of(options)
    report = Report()
    with ExitStack() as stack:
        kept = stack.enter_context(_documents_file(plan.documents_file, options.output))
        held = stack.enter_context(_documents_file(plan.held_out_file, options.held_out)) if options.held_out else None
        _write_documents(options, plan, report, kept, held)
        if plan.tokenizer:
            _write_shards(options, plan.tokenizer, plan.workers, report, kept, held)
        if plan.report_file:
            recorded = {"options": to_dict(options), "pipeline_version": __version__, "report": report.to_dict()}
            write_json(plan.report_file, recorded)
    return report


def plan_of(options: PrepareOptions) -> Plan:
    """Check everything that can be checked before any text is read. Raises ConfigError and InputError."""
    source = find_source(options.source)
    check_encoding(options.encoding)
    _check_values(options)
    for path in (*options.input, *options.exclude_texts):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    if source.name == "parquet" and all(is_prepared(path, options) for path in options.input):
        source = find_source("documents")
    recipe = Recipe(
        source.name, choose_rules(options.filter, source.rules), options.variant, options.name, options.licence
    )
    name = options.name or options.source
    documents = _named(options.documents, f"{name}.parquet")
    held_out = _named(options.held_out, f"{name}.parquet") if not options.tokenizer else None
    plan = Plan(
        source=source,
        recipe=recipe,
        workers=options.workers or min(len(os.sched_getaffinity(0)), LARGEST_DEFAULT_WORKERS),
        tokenizer=Tokenizer.load(options.tokenizer) if options.tokenizer else None,
        documents_file=documents,
        report_file=documents.with_suffix(".report.json") if documents else None,
        held_out_file=held_out,
    )
    _check_results(options, plan)
    return plan


def _named(place: Path | None, name: str) -> Path | None:
    return place if place is None or place.suffix == ".parquet" else place / name


def _check_values(options: PrepareOptions) -> None:
    if not options.input:
        raise ConfigError("input: no file was given")
    if options.variant not in VARIANTS:
        known = ", ".join(VARIANTS)
        raise ConfigError(f"variant={options.variant}: not one of {known}{suggest(options.variant, VARIANTS)}")
    if (options.tokenizer is None) != (options.output is None):
        raise ConfigError("tokenizer and output go together: both for shards, none for documents only")
    if options.output is None and options.documents is None:
        raise ConfigError("nothing to write: give documents (a folder), or tokenizer and output (for shards), or all")
    if not 0 <= options.held_out_fraction < 1:
        raise ConfigError(f"held_out_fraction={options.held_out_fraction}: not from 0 up to 1")
    if (options.held_out is None) != (options.held_out_fraction == 0):
        raise ConfigError("held_out_fraction and held_out go together: how much, and the folder it goes to")
    for name, least in (("workers", 0), ("lines_per_document", 0), ("split_level", 0)):
        if getattr(options, name) < least:
            raise ConfigError(f"{name}={getattr(options, name)}: not at least {least}")


def _check_results(options: PrepareOptions, plan: Plan) -> None:
    folders = [folder for folder in (options.output, options.held_out if plan.tokenizer else None) if folder]
    places = [place.resolve() for place in (*folders, *plan.files)]
    if len(set(places)) < len(places):
        raise ConfigError("documents, output and held_out: two of them are the same place")
    for place in places:
        for path in options.input:
            if path.resolve() == place or (path.resolve() in place.parents and path.is_dir() and place in folders):
                raise ConfigError(f"{place}: is both input and result")
    if options.overwrite:
        return
    taken = [place for place in folders if place.exists() and any(place.iterdir())] if folders else []
    taken += [file for file in plan.files if file.exists()]
    if taken:
        raise ConfigError(f"{taken[0]}: exists already; choose another place or give --overwrite")


@contextmanager
def _documents_file(wanted: Path | None, beside: Path | None) -> Iterator[IO[bytes]]:
    """The file of documents under its temporary name; without `wanted` it is gone afterwards, for shards only."""
    if wanted:
        with whole_file(wanted) as file:
            yield file
        return
    assert beside is not None
    with storage_errors(beside):
        beside.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=beside.parent, prefix=f".{beside.name}.documents-") as file:
            yield file


def _write_documents(
    options: PrepareOptions, plan: Plan, report: Report, kept: IO[bytes], held: IO[bytes] | None
) -> None:
    """Run the steps over the input into the file(s) of documents. Raises InputError when either stays empty."""
    seen = ExactDuplicates(excluded_digests(options.exclude_texts))
    bar = progress(_raw(options, plan, report), description=f"prepare {plan.recipe.name or options.source}", unit="doc")
    judged = cleaned(bar, plan.recipe, report, plan.workers)
    with ExitStack() as stack:
        to_kept = stack.enter_context(DocumentsWriter(kept))
        to_held = stack.enter_context(DocumentsWriter(held)) if held else None
        for document, digest in without_duplicates(judged, seen, report):
            if to_held and is_held_out(digest, options.held_out_fraction):
                report.note("documents held out")
                to_held.write(document)
            else:
                report.keep(document)
                to_kept.write(document)
        _check_counts(options, report, to_kept.count, to_held.count if to_held else None)
    for file in (kept, held):
        if file:
            file.flush()


def _check_counts(options: PrepareOptions, report: Report, kept: int, held: int | None) -> None:
    for count, which in ((kept, "to train on"), (held, "held out")):
        if count == 0:
            reasons = ", ".join(f"{reason} {drops}" for reason, drops in report.dropped.most_common()) or "none dropped"
            inputs = ", ".join(map(str, options.input))
            raise InputError(f"{inputs}: no documents {which} of {report.documents_read} read ({reasons})")


def _raw(options: PrepareOptions, plan: Plan, report: Report) -> Iterator[Document]:
    for path in options.input:
        yield from plan.source.read(path, report, options, plan.workers)


def _write_shards(
    options: PrepareOptions, tokenizer: Tokenizer, workers: int, report: Report, kept: IO[bytes], held: IO[bytes] | None
) -> None:
    """Tokenise the held-out documents and then the others; if these fail, the held-out shards go too."""
    assert options.output is not None
    if held and options.held_out:
        _tokenise(held, tokenizer, options.held_out, report, options.overwrite, workers)
    try:
        _tokenise(kept, tokenizer, options.output, report, options.overwrite, workers)
    except BaseException:
        if held and options.held_out:
            shutil.rmtree(options.held_out, ignore_errors=True)
        raise


def _tokenise(
    file: IO[bytes], tokenizer: Tokenizer, folder: Path, report: Report, overwrite: bool, workers: int
) -> None:
    documents = progress(read_documents([Path(file.name)]), description=f"tokenise {folder.name}", unit="doc")
    write_shards(documents, tokenizer, folder, report=report, overwrite=overwrite, workers=workers)
