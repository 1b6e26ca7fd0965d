"""From raw documents to those that are learned, in processes: cleaned, judged, each text once.

In: raw documents from a reader. Out: documents with the hash of their text, in the reader's order. Workers get chunks
of documents rather than single ones, so the first result takes as long as a chunk.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.text import clean_line, clean_text
from megadec.corpus.clean.variant import to_variant, variant_of
from megadec.corpus.dedup.exact import digest_of, digest_of_cleaned
from megadec.corpus.document import Document, full_text
from megadec.corpus.options import PrepareOptions
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.quality.rules import choose_rules, drop_reason
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources import Source

Hashed = tuple[Document, bytes]


def cleaned(
    documents: Iterable[Document], source: Source, options: PrepareOptions, report: CorpusReport
) -> Generator[Hashed, None, None]:
    """Documents that pass, with their hashes; drops and their reasons go to `report`.

    Close it (`contextlib.closing`) when it is left before its end: it ends the worker processes.
    """
    work = partial(clean_chunk, source, options)
    with closing(map_in_order(work, chunks_of(documents), options.processes)) as results:
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


def clean_chunk(
    source: Source, options: PrepareOptions, documents: list[Document]
) -> tuple[list[Hashed], CorpusReport]:
    """The documents of a chunk that pass, with their hashes, and the report of the others. Runs in any process."""
    report = CorpusReport()
    # Titles are joined to texts after cleaning, which cannot make the whole unclean. Documents of earlier runs may have
    # been changed since by anyone.
    hashed = digest_of if source.prepared else digest_of_cleaned
    passed: list[Hashed] = []
    for document in documents:
        result = _clean(document, source, options)
        if isinstance(result, str):
            report.drop(document, result)
        else:
            passed.append((result, hashed(full_text(result))))
    return passed, report


def _clean(document: Document, source: Source, options: PrepareOptions) -> Document | str:
    if not source.prepared:
        plain = source.clean(document, CleanContext(options.variant)) if source.clean else document
        if isinstance(plain, str):
            return plain
        document = _uniform(plain)
        if not document.text:
            return "empty"
        rules = choose_rules(options.filter, source.rules_of.get(document.source, source.rules))
        if reason := drop_reason(full_text(document), rules):
            return reason
    title, text = (to_variant(part, document.variant, options.variant) for part in (document.title, document.text))
    licence = document.licence or options.licence or source.licence
    # `variant` goes on saying what the original was written in.
    return replace(document, source=options.name or document.source, title=title, text=text, licence=licence)


def _uniform(document: Document) -> Document:
    lines = {name: clean_line(getattr(document, name)) for name in ("id", "title", "label", "url")}
    text = clean_text(document.text)
    return replace(document, **lines, text=text, variant=document.variant or variant_of(text))
