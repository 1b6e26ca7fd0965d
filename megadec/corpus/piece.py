"""One piece of the input: read, cleaned, judged and fingerprinted; then settled, when all duplicates are known.

Both halves run in any process of any machine that sees the work folder. What they make lies there under its final name
only when it is whole, so that nothing is done twice but what was under way.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from megadec.common.files import read_json, whole_file, write_json
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.clean.context import CleanContext, Taken
from megadec.corpus.dedup.contamination import EvaluationIndex
from megadec.corpus.dedup.exact import is_held_out
from megadec.corpus.dedup.fingerprint import Fingerprint, fingerprint
from megadec.corpus.document import FIELDS, SCHEMA, Document, full_text
from megadec.corpus.options import PrepareOptions
from megadec.corpus.parallel import grouped
from megadec.corpus.pipeline import Passed, judged
from megadec.corpus.privacy import mask_document, masked_kinds
from megadec.corpus.report.counts import CorpusReport, size_of
from megadec.corpus.report.dropped import DroppedList
from megadec.corpus.sources import find_source
from megadec.corpus.sources.pieces import Piece, read_piece
from megadec.corpus.tokenize import Encoded, encode_documents
from megadec.corpus.work import Work

DUPLICATES = "duplicates"
TRAIN, HELD_OUT = "train", "held-out"
GROUP_DOCUMENTS, GROUP_CHARACTERS = 1024, 2 << 20
BATCH_DOCUMENTS = 256
_PRINT = {
    "digest": pa.binary(),
    "signature": pa.binary(),
    "characters": pa.int64(),
    "date": pa.string(),
    "evaluation_set": pa.string(),
    "evaluation_item": pa.string(),
}
_COLUMNS = {"raw_characters": pa.int64(), "counts": pa.string(), **_PRINT}
PASSED = pa.schema([*SCHEMA, *(pa.field(name, kind, nullable=False) for name, kind in _COLUMNS.items())])


@dataclass(frozen=True)
class Settings:
    """What a worker has to know of a run: the kind of input, the options, and where the work lies."""

    source: str
    options: PrepareOptions
    work: Work


class Done(NamedTuple):
    """What a worker says of a piece: its number, and how many documents were read or settled."""

    number: int
    documents: int


def process_piece(settings: Settings, item: tuple[int, Piece]) -> Done:
    """Read, clean, judge and fingerprint the documents of a piece; what comes of it lies in the work folder.

    Memory: a few documents at a time, and two hundred characters of each one that is dropped. Raises InputError,
    StorageError.
    """
    number, piece = item
    source, options, work = find_source(settings.source), settings.options, settings.work
    dropped = DroppedList(options.name)
    kinds = masked_kinds(options.privacy)
    # What is shown of a document in lists and samples is masked as the documents are.
    hide = (lambda document: mask_document(kinds, document, CleanContext("keep"))) if kinds else None
    report = CorpusReport(options.name, on_drop=dropped.add, hide=hide)
    documents = 0
    with whole_file(work.passed(number)) as file, pq.ParquetWriter(file, PASSED, compression="zstd") as writer:
        raw = read_piece(piece, source.read, report, options)
        passed_documents = judged(raw, source, options, report)
        for group in grouped(
            passed_documents, lambda passed: size_of(passed.document), GROUP_DOCUMENTS, GROUP_CHARACTERS
        ):
            for passed in group:
                for name in passed.context.taken.pieces:
                    report.show(name, passed.raw, passed.document)
            index = _evaluation_index(work.evaluation) if options.decontaminate else None
            rows = [
                _row(passed, fingerprint(passed.document, options.dedup, cleaned=not source.prepared, evaluation=index))
                for passed in group
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=PASSED))
            documents += len(rows)
    dropped.write(work.dropped(number))
    write_json(work.counts(number), {"piece": piece.name, "documents": documents, "report": report.state()})
    return Done(number, documents + report.documents_read)


@cache
def _evaluation_index(folder: Path) -> EvaluationIndex:
    return EvaluationIndex(folder)


def names_of(work: Work, numbers: Iterable[int]) -> Iterator[tuple[str, str, str]]:
    """The id, source and title of all documents that passed, in order."""
    for number in numbers:
        with pq.ParquetFile(work.passed(number)) as file:
            for batch in file.iter_batches(columns=["id", "source", "title"]):
                yield from zip(*(batch.column(name).to_pylist() for name in ("id", "source", "title")), strict=True)


def _characters_of(passed: Passed) -> int:
    return size_of(passed.document)


def _row(passed: Passed, print_: Fingerprint) -> dict[str, Any]:
    taken = passed.context.taken
    counts = {
        "taken": {name: [taken.pieces[name], taken.characters[name]] for name in taken.pieces},
        "unknown": taken.unknown,
        "measured": passed.context.measured,
    }
    return {
        **{name: getattr(passed.document, name) for name in FIELDS},
        "raw_characters": size_of(passed.raw),
        "counts": json.dumps(counts, ensure_ascii=False),
        **{name: getattr(print_, name) for name in _PRINT},
    }


def fingerprints_of(work: Work, numbers: Iterable[int]) -> Iterator[Fingerprint]:
    """The fingerprints of all documents that passed, in order."""
    for number in numbers:
        with pq.ParquetFile(work.passed(number)) as file:
            for batch in file.iter_batches(batch_size=GROUP_DOCUMENTS, columns=list(_PRINT)):
                columns = (batch.column(name).to_pylist() for name in _PRINT)
                yield from (Fingerprint(*values) for values in zip(*columns, strict=True))


@dataclass(frozen=True)
class Verdict:
    """What was decided about the documents of a piece that passed: a code for each, and what the codes mean."""

    number: int
    codes: np.ndarray
    reasons: tuple[str, ...]


def settle_piece(settings: Settings, tokenizer: Tokenizer | None, verdict: Verdict) -> Done:
    """Count what was decided about a piece, list what was dropped, and tokenize what is kept and held out.

    Raises TokenizerError, StorageError.
    """
    options, work, number = settings.options, settings.work, verdict.number
    report, dropped = CorpusReport(options.name), DroppedList()
    report.on_drop = dropped.add
    with ExitStack() as stack:
        sets = {}
        for name in (TRAIN, HELD_OUT):
            if tokenizer:
                sets[name] = _Tokens(tokenizer, stack.enter_context(whole_file(work.settled(number, f"{name}.tokens"))))
        for rows in _verdicts(work, verdict):
            kept: dict[str, list[tuple[Document, bytes]]] = {TRAIN: [], HELD_OUT: []}
            for row, reason in rows:
                document = Document(**{name: row[name] for name in FIELDS})
                if reason:
                    report.drop(document, reason, DUPLICATES, row["raw_characters"])
                    continue
                held_out = is_held_out(row["digest"], options.held_out_fraction)
                _keep(report, document, row, held_out)
                kept[HELD_OUT if held_out else TRAIN].append((document, row["digest"]))
            for name, tokens in sets.items():
                tokens.add(kept[name])
    for name, tokens in sets.items():
        write_json(work.settled(number, f"{name}.entries"), tokens.entries)
    dropped.write(work.settled(number, "dropped.parquet"))
    write_json(work.settled(number), {"report": report.state()})
    return Done(number, len(verdict.codes))


def _verdicts(work: Work, verdict: Verdict) -> Iterator[list[tuple[dict[str, Any], str]]]:
    """The rows of the documents of a piece that passed, a few at a time, each with the reason to drop it or none."""
    place = 0
    with pq.ParquetFile(work.passed(verdict.number)) as file:
        for batch in file.iter_batches(
            batch_size=BATCH_DOCUMENTS, columns=[*FIELDS, "raw_characters", "counts", "digest"]
        ):
            codes = verdict.codes[place : place + len(batch)].tolist()
            place += len(batch)
            yield [(row, verdict.reasons[code]) for row, code in zip(batch.to_pylist(), codes, strict=True)]


def _keep(report: CorpusReport, document: Document, row: dict[str, Any], held_out: bool) -> None:
    counts, taken = json.loads(row["counts"]), Taken()
    for name, (pieces, characters) in counts["taken"].items():
        taken.add(name, characters, pieces)
    taken.unknown.update(counts["unknown"])
    report.keep(document, row["raw_characters"], taken, held_out)
    report.of(document.source).measured.update(counts["measured"])


class _Tokens:
    """The tokens of the documents of a piece that go to one set: a file of tokens, and one that says whose they are."""

    def __init__(self, tokenizer: Tokenizer, tokens: IO[bytes]) -> None:
        self.tokenizer, self.tokens = tokenizer, tokens
        self.entries: list[list[Any]] = []

    def add(self, documents: list[tuple[Document, bytes]]) -> None:
        arrays = encode_documents([document for document, _ in documents], self.tokenizer)
        for (document, digest), array in zip(documents, arrays, strict=True):
            self.tokens.write(array.tobytes())
            size = len(full_text(document))
            self.entries.append([document.id, document.source, document.licence, size, digest.hex(), len(array)])


def encoded_of(work: Work, numbers: Iterable[int], name: str, dtype: str) -> Iterator[Encoded]:
    """The documents of a set with their tokens, in order."""
    for number in numbers:
        tokens = np.fromfile(work.settled(number, f"{name}.tokens"), dtype)
        end = 0
        for *entry, size in read_json(work.settled(number, f"{name}.entries")):
            start, end = end, end + size
            yield Encoded._make([*entry, tokens[start:end]])
