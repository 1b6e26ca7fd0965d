"""Documents of earlier runs, which count as seen before this one."""

from collections.abc import Generator
from contextlib import closing
from functools import partial
from itertools import chain

from megadec.corpus.dedup.fingerprint import Fingerprint, fingerprint
from megadec.corpus.dedup.options import DedupOptions
from megadec.corpus.document import Document
from megadec.corpus.parallel import chunks_of, map_in_order
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.parquet import read_prepared
from megadec.corpus.sources.reading import ReadOptions


def seen_before(options: DedupOptions, workers: int) -> Generator[Fingerprint, None, None]:
    """Fingerprints of the documents in `options.against`, made by so many processes.

    Close it when it is left before its end. Raises InputError for what is no file of documents.
    """
    documents = chain.from_iterable(read_prepared(path, CorpusReport(), ReadOptions()) for path in options.against)
    with closing(map_in_order(partial(_fingerprints, options), chunks_of(documents), workers)) as chunks:
        for prints in chunks:
            yield from prints


def _fingerprints(options: DedupOptions, documents: list[Document]) -> list[Fingerprint]:
    return [fingerprint(document, options, cleaned=False) for document in documents]
