"""The whole pipeline: raw files -> clean -> judged -> no duplicates -> documents in Parquet -> token shards.

Documents go to disk once before they are tokenized, so that one pass feeds the training and the held-out set in
constant memory.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from megadec import __version__
from megadec.common.config import parse, to_dict
from megadec.common.errors import InputError
from megadec.common.files import storage_errors, whole_file, write_json
from megadec.common.log import logger, progress
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.exact import excluded_digests, is_held_out
from megadec.corpus.document import DocumentsWriter, read_documents
from megadec.corpus.options import PrepareOptions, check_options
from megadec.corpus.pipeline import cleaned, without_duplicates
from megadec.corpus.report.counts import CorpusReport, size_of
from megadec.corpus.shards import write_shards
from megadec.corpus.sources import Source

__all__ = ["PrepareOptions", "prepare"]

log = logger(__name__)


def prepare(options: PrepareOptions) -> CorpusReport:
    """Run the pipeline and write what `options` ask for; every result gets its name only when all of them are whole.

    Raises ConfigError for options that do not fit together or results that exist, InputError for input that cannot be
    read or of which nothing is left, StorageError for the disk; then no result is left under its name.
    """
    source = check_options(options)
    tokenizer = Tokenizer.load(options.tokenizer) if options.tokenizer else None
    report = CorpusReport(options.name)
    with ExitStack() as stack:
        kept = stack.enter_context(_documents_file(options.documents_file, options.output))
        held = None
        if options.held_out:
            held = stack.enter_context(_documents_file(options.held_out_file, options.held_out))
        _write_documents(source, options, report, kept, held)
        if tokenizer:
            _write_shards(tokenizer, options, report, kept, held)
        if options.report_file:
            recorded = {"options": to_dict(options), "pipeline_version": __version__, "report": report.to_dict()}
            write_json(options.report_file, recorded)
    return report


def main(argv: Sequence[str]) -> None:
    """Prepare what the command line asks for, and print the report."""
    print(prepare(parse(PrepareOptions, argv, description="Raw text to documents and token shards.")).render())


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
    source: Source, options: PrepareOptions, report: CorpusReport, kept: IO[bytes], held: IO[bytes] | None
) -> None:
    """Run the steps over the input into the file(s) of documents. Raises InputError when either stays empty."""
    raw = chain.from_iterable(source.read(path, report, options) for path in options.input)
    bar = progress(raw, description=f"prepare {options.name or options.source}", unit="doc")
    with ExitStack() as stack:
        judged = stack.enter_context(closing(cleaned(stack.enter_context(bar), source, options, report)))
        to_kept = stack.enter_context(DocumentsWriter(kept))
        to_held = stack.enter_context(DocumentsWriter(held)) if held else None
        excluded = chain.from_iterable(excluded_digests(options.exclude_texts).values())
        for passed, digest in without_duplicates(judged, excluded, report):
            held_out = to_held is not None and is_held_out(digest, options.held_out_fraction)
            report.keep(passed.document, size_of(passed.raw), passed.context.taken, held_out)
            (to_held if to_held and held_out else to_kept).write(passed.document)
        missing = "to train on" if not report.kept else "held out" if held and not report.held_out else ""
        if missing:
            reasons = ", ".join(f"{reason} {drops}" for reason, drops in report.dropped.most_common()) or "none dropped"
            inputs = ", ".join(map(str, options.input))
            raise InputError(f"{inputs}: no documents {missing} of {report.documents_read} read ({reasons})")


def _write_shards(
    tokenizer: Tokenizer, options: PrepareOptions, report: CorpusReport, kept: IO[bytes], held: IO[bytes] | None
) -> None:
    """Tokenize the held-out documents and then the others; if these fail, the held-out shards go too."""
    with ExitStack() as undo:
        for file, folder in ((held, options.held_out), (kept, options.output)):
            if file and folder:
                file.flush()
                bar = progress(read_documents([Path(file.name)]), description=f"tokenize {folder.name}", unit="doc")
                overwrite, workers = options.overwrite, options.processes
                index = write_shards(bar, tokenizer, folder, report=report, overwrite=overwrite, workers=workers)
                log.info(f"{folder}: {index['documents']:,} documents, {index['tokens']:,} tokens")
                undo.callback(shutil.rmtree, folder, ignore_errors=True)
        undo.pop_all()
