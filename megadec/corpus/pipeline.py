"""From raw documents to those that are learned: a list of steps, each a function of one document.

In: raw documents from a reader. Out: documents with what was taken out of each. A step returns the document, changed
or not, or the reason to drop it. Steps know nothing of who runs them, nor of other documents: duplicates are decided
later.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.mojibake import NAME as MOJIBAKE
from megadec.corpus.clean.mojibake import repair_mojibake
from megadec.corpus.clean.social import clean_social, removed_forms
from megadec.corpus.clean.text import clean_line, clean_text
from megadec.corpus.clean.variant import to_variant, variant_of
from megadec.corpus.document import Document, full_text
from megadec.corpus.options import PrepareOptions
from megadec.corpus.privacy import mask_document, masked_kinds
from megadec.corpus.quality.classifier import load_classifier
from megadec.corpus.quality.language import language_counts
from megadec.corpus.quality.rules import QualityRules, choose_rules, drop_reason
from megadec.corpus.report.counts import CorpusReport, size_of
from megadec.corpus.sources import Source


@dataclass(frozen=True, slots=True)
class Step:
    """One step. What `run` takes out and does not count by a name of its own is counted under `name`."""

    name: str
    run: Callable[[Document, CleanContext], Document | str]


@dataclass(frozen=True, slots=True)
class Stage:
    """What a step has made of a document: the document, or the reason to drop it."""

    step: str
    outcome: Document | str


@dataclass(frozen=True, slots=True)
class Passed:
    """A document that passed all steps, the raw one, and its context: what was taken out of it."""

    document: Document
    raw: Document
    context: CleanContext


def steps_of(source: Source, options: PrepareOptions) -> tuple[Step, ...]:
    """The steps of a run, in order; a new one is a function (document, context) -> document or reason."""
    steps: list[Step] = []
    if not source.prepared:
        if source.decoded:
            steps.append(Step(MOJIBAKE, repair_mojibake))
        if source.clean:
            steps.append(Step("markup", source.clean))
        if forms := removed_forms(options.social, source.social):
            steps.append(Step("social forms", partial(clean_social, forms)))
        steps.append(Step("made uniform", _uniform))
        steps.append(Step("quality rules", partial(_judge, source, options)))
    if options.filter.classifier:
        steps.append(Step("classifier", partial(_classify, options.filter.classifier, options.filter.min_quality)))
    if kinds := masked_kinds(options.privacy):
        steps.append(Step("private data", partial(mask_document, kinds)))
    if options.variant != "keep":
        steps.append(Step("variant conversion", _convert))
    steps.append(Step("naming", partial(_name, source, options)))
    return tuple(steps)


def context_of(options: PrepareOptions) -> CleanContext:
    """What the cleaner of a document is told."""
    return CleanContext(options.variant, groups=str(options.conversion_groups or ""))


def rules_of(document: Document, source: Source, options: PrepareOptions) -> QualityRules:
    """The quality rules that hold for a document as its reader gave it."""
    return choose_rules(options.filter, source.rules_of.get(document.source, source.rules))


def stages(raw: Document, steps: Iterable[Step], context: CleanContext) -> Iterator[Stage]:
    """The document after each step, until one drops it. What a step leaves unexplained is counted under its name."""
    document = raw
    for step in steps:
        counted = context.taken.characters.total()
        outcome = step.run(document, context)
        yield Stage(step.name, outcome)
        if isinstance(outcome, str):
            return
        lost = size_of(document) - size_of(outcome) - (context.taken.characters.total() - counted)
        if lost:
            context.taken.add(step.name, lost)
        document = outcome


def judged(
    documents: Iterable[Document], source: Source, options: PrepareOptions, report: CorpusReport
) -> Iterator[Passed]:
    """Documents that pass; drops, with their reasons and stages, go to `report`."""
    steps = steps_of(source, options)
    for raw in documents:
        context = context_of(options)
        for stage in stages(raw, steps, context):
            last = stage
        if isinstance(last.outcome, str):
            report.drop(raw, last.outcome, last.step)
            report.of(raw.source).measured.update(context.measured)
        else:
            yield Passed(last.outcome, raw, context)


def _judge(source: Source, options: PrepareOptions, document: Document, _: CleanContext) -> Document | str:
    if not document.text:
        return "empty"
    return drop_reason(full_text(document), rules_of(document, source, options)) or document


def _classify(path: Path, least: float, document: Document, context: CleanContext) -> Document | str:
    quality = load_classifier(path).score(full_text(document))
    context.measured[f"quality from {min(int(quality * 20), 19) / 20:.2f}"] += 1
    return document if quality >= least else "low_quality"


def _uniform(document: Document, _: CleanContext) -> Document:
    lines = {name: clean_line(getattr(document, name)) for name in ("id", "title", "label", "url")}
    text = clean_text(document.text)
    return replace(document, **lines, text=text, variant=document.variant or variant_of(text))


def _convert(document: Document, context: CleanContext) -> Document:
    if context.converted:  # by a cleaner that knows the page's own rules
        return replace(document, variant=context.variant)
    title, text = (to_variant(part, document.variant, context.variant) for part in (document.title, document.text))
    return replace(document, title=title, text=text, variant=context.variant)


def _name(source: Source, options: PrepareOptions, document: Document, context: CleanContext) -> Document:
    letters = language_counts(full_text(document))
    context.measured.update({f"letters {language}": count for language, count in letters.items()})
    licence = document.licence or options.licence or source.licence
    return replace(document, source=options.name or document.source, licence=licence)
