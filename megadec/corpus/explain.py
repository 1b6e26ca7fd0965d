"""One document at every stage of the line, and why it is kept or dropped: `tools/prepare.py ... --explain ID`.

All input is read, as several documents may have one id; each is shown when it is found. Nothing is written. What was
decided among all documents (duplicates, texts that are excluded) is known when a run has ended, or is under way and has
got as far.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from megadec.common.errors import InputError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document, full_text
from megadec.corpus.options import PrepareOptions, check_options
from megadec.corpus.pipeline import context_of, rules_of, stages, steps_of
from megadec.corpus.quality.classifier import load_classifier
from megadec.corpus.quality.rules import judge
from megadec.corpus.report.counts import CorpusReport, size_of
from megadec.corpus.sources import Source, find_source
from megadec.corpus.sources.pieces import pieces, read_piece

MOST_SHOWN = 3


def explain(options: PrepareOptions) -> Iterator[str]:
    """The documents whose id is `options.explain`, as lines to read: the first ones whole, of the rest their number.

    Raises InputError where the input has none.
    """
    source = find_source(check_options(options))
    count = 0
    for found in _find(source, options):
        count += 1
        if count <= MOST_SHOWN:
            yield _explained(*found, source, options)
    if not count:
        raise InputError(f"explain={options.explain}: no document of the input has this id")
    if count > 1:
        shown = f"{count:,} documents have this id" + (f", {MOST_SHOWN} are shown" if count > MOST_SHOWN else "")
        yield f"=== {shown}; what was decided is found by the id alone"


def _explained(found: Document | str, piece: str, source: Source, options: PrepareOptions) -> str:
    if isinstance(found, str):
        return f"{options.explain}, in {piece}: dropped while it was read: {found}"
    lines = [f"{found.id} of {found.source}, in {piece}", *_shown("raw", found)]
    context, document = context_of(options), found
    taken_before = dict(context.taken.characters)
    for stage in stages(found, steps_of(source, options), context):
        if stage.step == "quality rules":
            lines.extend(_rules(document, source, options))
        if stage.step == "classifier" and options.filter.classifier:
            score = load_classifier(options.filter.classifier).score(full_text(document))
            lines.append(f"=== classifier: {score:.4f}, at least {options.filter.min_quality:g}")
        if isinstance(stage.outcome, str):
            return "\n".join([*lines, f"=== {stage.step}: dropped: {stage.outcome}"])
        if stage.outcome != document:
            lines.extend(
                _shown(stage.step, stage.outcome, _since(context, taken_before, size_of(document), stage.outcome))
            )
        document, taken_before = stage.outcome, dict(context.taken.characters)
    lines.append("=== taken out in all")
    for name, characters in context.taken.characters.most_common():
        lines.append(f"{characters:>12,} characters  {name} ({context.taken.pieces[name]:,})")
    lines.append(f"{size_of(found):>12,} characters before, {size_of(document):,} after")
    return "\n".join([*lines, f"=== among all documents: {_decision(document, options)}"])


def _find(source: Source, options: PrepareOptions) -> Iterator[tuple[Document | str, str]]:
    """The documents that have the id, or why a reader has dropped one; and the names of their pieces."""
    reasons: list[str] = []

    def listen(document: Document, reason: str, stage: str, characters: int) -> None:
        if document.id == options.explain:
            reasons.append(reason)

    # An input that is named twice is read twice by a run, but has its documents once.
    for piece in pieces(source.read, dict.fromkeys(options.input), options):
        report = CorpusReport(options.name, on_drop=listen)
        for document in read_piece(piece, source.read, report, options):
            if document.id == options.explain:
                yield document, piece.name
        yield from ((reason, piece.name) for reason in reasons)
        reasons.clear()


def _shown(stage: str, document: Document, told: str = "") -> Iterator[str]:
    yield f"=== {stage}: {size_of(document):,} characters{told}"
    for name in ("title", "label", "url", "licence", "variant"):
        if value := getattr(document, name):
            yield f"{name}: {value}"
    yield document.text


def _since(context: CleanContext, before: dict[str, int], size: int, after: Document) -> str:
    """What a step has taken out by name, as the end of a line; the rest goes under the name of the step."""
    named = {name: count - before.get(name, 0) for name, count in context.taken.characters.items()}
    told = [f"{name} {count:,}" for name, count in named.items() if count]
    rest = size - size_of(after) - sum(named.values())
    return f"; taken out: {', '.join([*told, *([f'the rest {rest:,}'] if rest else [])])}" if told or rest else ""


def _rules(document: Document, source: Source, options: PrepareOptions) -> Iterator[str]:
    yield "=== quality rules"
    for found in judge(full_text(document), rules_of(document, source, options)):
        holds = "holds" if found.passed else f"does not hold: {found.reason}"
        yield f"{found.rule:>32} {found.threshold:>12,g}, found {found.value:,.4g}: {holds}"


def _decision(document: Document, options: PrepareOptions) -> str:
    """What a run that has ended, or one under way, has decided about a document that passed all steps."""
    lists = [options.dropped_file, options.output and options.output / "dropped.parquet"]
    if options.output or options.documents_file:
        lists.extend(sorted(options.work_folder.glob("settled-*.dropped.parquet")))
    for path in filter(None, lists):
        for row in _rows(path, document.id, ["reason"]):
            return f"dropped: {row['reason']} ({path})"
    for path in filter(None, (options.documents_file, options.held_out_file)):
        for row in _rows(path, document.id, ["id", "source"]):
            return f"kept ({path}, source {row['source']})"
    if options.output and options.output.exists():
        return f"kept: {options.output / 'dropped.parquet'} does not list it"
    return "not known: no run with these results has got as far"


def _rows(path: Path, name: str, columns: list[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    rows: list[dict[str, str]] = pq.read_table(path, columns=columns, filters=[("id", "=", name)]).to_pylist()
    return rows
