"""The whole line: raw files -> pieces, cleaned and judged -> duplicates decided -> documents -> token shards.

Pieces are read, cleaned and tokenized by workers, which leave what they make in the work folder; this process decides
about duplicates and joins what the workers made. Memory is constant but for some 100 bytes a document.
"""

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import InputError, MegadecError
from megadec.common.files import read_json, storage_errors, write_json
from megadec.common.log import logger, progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.contamination import build_index
from megadec.corpus.dedup.decide import Decisions, decide, write_clusters
from megadec.corpus.dedup.earlier import seen_before
from megadec.corpus.dedup.exact import excluded_digests
from megadec.corpus.executors.local import Executor, LocalExecutor
from megadec.corpus.explain import explain
from megadec.corpus.join import join_documents, join_dropped, joined_report, kept_documents
from megadec.corpus.options import PrepareOptions, check_free, check_options
from megadec.corpus.piece import (
    HELD_OUT,
    TRAIN,
    Done,
    Settings,
    Verdict,
    encoded_of,
    fingerprints_of,
    names_of,
    process_piece,
    settle_piece,
)
from megadec.corpus.quality.classifier import load_classifier
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.report.page import measure_documents, write_page
from megadec.corpus.shards import fill_folder
from megadec.corpus.sources import find_source
from megadec.corpus.sources.pieces import Piece, pieces
from megadec.corpus.sources.reading import check_files
from megadec.corpus.tokenize import token_dtype
from megadec.corpus.work import COMMITTING, Work, commit, content_of, open_work, remove_staged, staged

__all__ = ["PrepareOptions", "prepare"]

# What changes no byte of what workers make.
UNSEEN_OPTIONS = ("workers", "overwrite", "explain")
DROPPED_NAME, DUPLICATES_NAME, REPORT_NAME, PAGE_NAME = (
    "dropped.parquet",
    "duplicates.parquet",
    "report.json",
    "report.html",
)
MOST_ITEMS = 100

log = logger(__name__)


def prepare(options: PrepareOptions, executor: Executor | None = None) -> CorpusReport:
    """Run the line and write what `options` ask for; every result gets its name only when all of them are whole.

    executor: who runs the steps; None: processes of this machine. Raises ConfigError for options that do not fit
    together or results that exist, InputError for input that cannot be read or of which nothing is left; then nothing
    stays. Raises StorageError for the disk and WorkerLostError; then the work folder stays, and the same call goes on.
    """
    source = check_options(options)
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    if not (options.work_folder / COMMITTING).exists():
        check_free(options)
    with open_work(options.work_folder, _manifest(options, source, tokenizer)) as (work, committing):
        line = _Line(options, Settings(source, options, work), tokenizer, executor or LocalExecutor(options.processes))
        if committing:
            return line.commit()
        check_free(options)
        if not any(work.folder.glob("piece-*.json")):
            remove_staged(line.results)  # of another run
        try:
            with line.executor:
                return line.run()
        except MegadecError as error:
            if error.exit_status == InputError.exit_status:
                remove_staged(line.results)
            raise


def main(argv: Sequence[str]) -> None:
    """Prepare what the command line asks for, and print the report; or explain one document."""
    options = parse(PrepareOptions, argv, description="Raw text to documents and token shards.")
    with stopped_by_signals():
        for text in explain(options) if options.explain else (prepare(options).render(),):
            print(text, flush=True)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block, with an error that says how to go on."""

    def stop(number: int, _: object) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    former = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except KeyboardInterrupt as error:
        raise MegadecError(f"stopped by {error}; the same command goes on with what is done") from None
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _manifest(options: PrepareOptions, source: str, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What the work depends on: run again with the same, it goes on."""
    stated = {name: value for name, value in to_dict(options).items() if name not in UNSEEN_OPTIONS}
    return {
        "pipeline_version": __version__,
        "source": source,
        "options": stated,
        "tokenizer": tokenizer.sha256 if tokenizer else "",
        "contents": {str(path): content_of(path) for path in options.files_read},
    }


@dataclass(frozen=True)
class _Line:
    """A run with its work folder open."""

    options: PrepareOptions
    settings: Settings
    tokenizer: Tokenizer | None
    executor: Executor

    @property
    def work(self) -> Work:
        return self.settings.work

    @property
    def results(self) -> list[Path]:
        """What gets its name at the end; the data set last."""
        options = self.options
        held_out = options.held_out if self.tokenizer else options.held_out_file
        files = (
            options.dropped_file,
            options.duplicates_file,
            options.page_file,
            options.documents_file,
            options.report_file,
        )
        return [path for path in (*files, held_out, options.output) if path]

    def run(self) -> CorpusReport:
        """Do what is not done yet, and give all results their names."""
        options, work = self.options, self.work
        if options.decontaminate:
            build_index(options.decontaminate, work.evaluation, options.dedup.evaluation_fraction)
        pieces = self._process()
        sizes = [read_json(work.counts(number))["documents"] for number in range(pieces)]
        with closing(seen_before(options.dedup, options.processes)) as seen:
            decisions = decide(
                fingerprints_of(work, range(pieces)),
                options.dedup,
                work.folder,
                excluded=excluded_digests(options.exclude_texts),
                seen=seen,
            )
        verdicts = list(_verdicts(decisions, sizes))
        self._settle(verdicts)
        report = joined_report(work, pieces, options.name)
        _tell(decisions, report)
        check_files(report, self.options)
        self._check_left(report)
        if options.documents_file or options.held_out_file:
            to_kept, to_held_out = (path and staged(path) for path in (options.documents_file, options.held_out_file))
            join_documents(work, verdicts, options.held_out_fraction, to_kept, to_held_out)
        join_dropped(work, pieces, staged(options.dropped_file) if options.dropped_file else work.folder / DROPPED_NAME)
        clusters = staged(options.duplicates_file) if options.duplicates_file else work.folder / DUPLICATES_NAME
        write_clusters(decisions, names_of(work, range(pieces)), clusters)
        if options.report_file:
            recorded = {"options": to_dict(options), "pipeline_version": __version__, "report": report.to_dict()}
            if options.filter.classifier:
                classifier = load_classifier(options.filter.classifier)
                recorded["classifier"] = {"sha256": classifier.sha256, **classifier.record}
            write_json(staged(options.report_file), recorded)
        index = self._write_shards(self.tokenizer, pieces, report) if self.tokenizer else {}
        self._write_page(verdicts, report, index, clusters)
        write_json(work.folder / REPORT_NAME, report.state())
        return self.commit()

    def commit(self) -> CorpusReport:
        """Give all results their names."""
        commit(self.work, self.results)
        return CorpusReport.from_state(read_json(self.work.folder / REPORT_NAME))

    def _process(self) -> int:
        """Have every piece read and cleaned that is not done yet; how many pieces there are."""
        options, work = self.options, self.work
        found = 0

        def waiting() -> Iterator[tuple[int, Piece]]:
            nonlocal found
            reader = find_source(self.settings.source).read
            for number, piece in enumerate(pieces(reader, options.input, options)):
                found = number + 1
                path = work.counts(number)
                if not (path.exists() and read_json(path)["piece"] == piece.name):
                    yield number, piece

        self._follow(partial(process_piece, self.settings), waiting(), f"prepare {options.name or options.source}")
        return found

    def _settle(self, verdicts: list[Verdict]) -> None:
        waiting = (verdict for verdict in verdicts if not self.work.settled(verdict.number).exists())
        self._follow(partial(settle_piece, self.settings, self.tokenizer), waiting, "settle")

    def _follow(self, function: Callable[[Any], Done], items: Iterator[Any], what: str) -> None:
        """Have the items done, and show how far it is."""
        with progress(description=what, unit="doc") as bar:
            for done in self.executor.run(function, items, self.work.folder):
                bar.update(done.documents)

    def _check_left(self, report: CorpusReport) -> None:
        missing = (
            "to train on" if not report.kept else "held out" if self.options.held_out and not report.held_out else ""
        )
        if missing:
            reasons = ", ".join(f"{reason} {drops}" for reason, drops in report.dropped.most_common()) or "none dropped"
            inputs = ", ".join(map(str, self.options.input))
            raise InputError(f"{inputs}: no documents {missing} of {report.documents_read} read ({reasons})")

    def _write_shards(self, tokenizer: Tokenizer, pieces: int, report: CorpusReport) -> dict[str, Any]:
        """Write the held-out shards and those to train on; the index of the latter."""
        index: dict[str, Any] = {}
        dtype = token_dtype(tokenizer.vocabulary_size)
        for name, folder in ((HELD_OUT, self.options.held_out), (TRAIN, self.options.output)):
            if folder:
                with storage_errors(folder):
                    staged(folder).mkdir(parents=True, exist_ok=True)
                encoded = encoded_of(self.work, range(pieces), name, dtype)
                index = fill_folder(
                    encoded, tokenizer, staged(folder), name=str(folder), report=report, done=self.work.folder / name
                )
                log.info(f"{folder}: {index['documents']:,} documents, {index['tokens']:,} tokens")
        if not self.options.dropped_file and self.options.output:
            shutil.copyfile(self.work.folder / DROPPED_NAME, staged(self.options.output) / DROPPED_NAME)
        return index

    def _write_page(self, verdicts: list[Verdict], report: CorpusReport, index: dict[str, Any], clusters: Path) -> None:
        options = self.options
        page = staged(options.page_file) if options.page_file else staged(options.output or Path()) / PAGE_NAME
        measured = measure_documents(
            kept_documents(self.work, verdicts, options.held_out_fraction), report.kept.total()
        )
        name = (options.output or options.documents_file or page).stem
        write_page(page, name, report.to_dict(), measured, index, clusters)


def _tell(decisions: Decisions, report: CorpusReport) -> None:
    """Count in the report what was decided for which file and which evaluation set."""
    report.details["clusters of duplicates"] = decisions.cluster_count
    for name, documents in decisions.excluded.items():
        report.notes[f"documents excluded for {name}"] = documents
        if not documents:
            log.warning("exclude_texts=%s: no document has a text of this file", name)
    for name, items in decisions.evaluation_items.items():
        report.details[f"texts of {name}"] = dict(items.most_common(MOST_ITEMS))


def _verdicts(decisions: Decisions, sizes: list[int]) -> Iterator[Verdict]:
    """The decisions about the documents of each piece."""
    place = 0
    for number, size in enumerate(sizes):
        yield Verdict(number, decisions.codes[place : place + size], tuple(decisions.reasons))
        place += size
    assert place == len(decisions), f"{place} documents, decisions about {len(decisions)}"
