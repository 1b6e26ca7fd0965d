"""From raw documents to those that are learned, in processes: cleaned, judged, each text once.

In: raw documents from a reader. Out: documents with the hash of their text, in the reader's order. Workers get chunks
of documents rather than single ones, so the first result takes as long as a chunk.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

from megadec.corpus.clean.text import clean_line, clean_text
from megadec.corpus.clean.variant import to_variant, variant_of
from megadec.corpus.dedup import digest_of, digest_of_cleaned
from megadec.corpus.document import Document, full_text
from megadec.corpus.filter import QualityRules, drop_reason
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.report import CorpusReport
from megadec.corpus.sources import Source

Hashed = tuple[Document, bytes]


@dataclass(frozen=True)
class Recipe:
    """What is done to each document: everything that a worker needs to know.

    `rules_of` holds other quality rules by the source that the reader gave a document. `variant` is keep, zh-Hans or
    zh-Hant.
    """

    source: Source
    rules: QualityRules
    rules_of: Mapping[str, QualityRules] = field(default_factory=dict)
    variant: str = "keep"
    name: str = ""
    licence: str = ""


def cleaned(
    documents: Iterable[Document], recipe: Recipe, report: CorpusReport, workers: int
) -> Generator[Hashed, None, None]:
    """Documents that pass, with their hashes; drops and their reasons go to `report`.

    Close it (`contextlib.closing`) when it is left before its end: it ends the worker processes.
    """
    work = partial(clean_chunk, recipe)
    with closing(map_in_order(work, chunks_of(documents), workers)) as results:
        for passed, partial_report in results:
            report.merge(partial_report)
            yield from passed


def without_duplicates(
    documents: Iterable[Hashed], excluded: Iterable[bytes], report: CorpusReport
) -> Iterator[Hashed]:
    """Those whose text is new and not excluded; the others are dropped with their reason."""
    never = frozenset(excluded)
    seen: set[bytes] = set()
    for document, digest in documents:
        if digest in never or digest in seen:
            report.drop(document, "excluded" if digest in never else "duplicate")
        else:
            seen.add(digest)
            yield document, digest


def clean_chunk(recipe: Recipe, documents: list[Document]) -> tuple[list[Hashed], CorpusReport]:
    """The documents of a chunk that pass, with their hashes, and the report of the others. Runs in any process."""
    report = CorpusReport()
    # Titles are joined to texts after cleaning, which cannot make the whole unclean. Documents of earlier runs may have
    # been changed since by anyone.
    hashed = digest_of if recipe.source.prepared else digest_of_cleaned
    passed: list[Hashed] = []
    for document in documents:
        result = _clean(document, recipe)
        if isinstance(result, str):
            report.drop(document, result)
        else:
            passed.append((result, hashed(full_text(result))))
    return passed, report


def _clean(document: Document, recipe: Recipe) -> Document | str:
    source = recipe.source
    if not source.prepared:
        plain = source.clean(document) if source.clean else document
        if isinstance(plain, str):
            return plain
        document = _uniform(plain)
        if not document.text:
            return "empty"
        reason = drop_reason(full_text(document), recipe.rules_of.get(document.source, recipe.rules))
        if reason:
            return reason
    title, text = (to_variant(part, document.variant, recipe.variant) for part in (document.title, document.text))
    licence = document.licence or recipe.licence or source.licence
    # `variant` goes on saying what the original was written in.
    return replace(document, source=recipe.name or document.source, title=title, text=text, licence=licence)


def _uniform(document: Document) -> Document:
    lines = {name: clean_line(getattr(document, name)) for name in ("id", "title", "label", "url")}
    text = clean_text(document.text)
    return replace(document, **lines, text=text, variant=document.variant or variant_of(text))
