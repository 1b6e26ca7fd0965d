"""The sources by name: how each is read, what cleans it, and which quality rules suit it.

In: a name from the command line. Out: functions. A reader's or cleaner's module is imported when its source is used, so
that the parsers of one source cost nothing to the others (and to each worker process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from megadec.common.errors import ConfigError, suggest
from megadec.corpus.document import Document
from megadec.corpus.report import Report
from megadec.corpus.sources.reading import ReadOptions

Cleaned = Document | str


@dataclass(frozen=True)
class Source:
    """A kind of raw input. `reader` and `cleaner` are `module:function` below `megadec.corpus`.

    `rules` names the quality rules, `rules_of` other ones for documents that the reader gives another source than this;
    `prepared` says that its documents were cleaned and judged by an earlier run.
    """

    name: str
    reader: str
    description: str
    cleaner: str = ""
    rules: str = "article"
    rules_of: tuple[tuple[str, str], ...] = ()
    licence: str = ""
    prepared: bool = False

    def read(self, path: Path, report: Report, options: ReadOptions, workers: int = 1) -> Iterator[Document]:
        """Raw documents of one input path."""
        read = _function(self.reader)
        if self.reader.startswith("sources.zhwiki:"):
            return cast(Iterator[Document], read(path, report, workers=workers))
        return cast(Iterator[Document], read(path, report, options))

    def clean(self) -> Callable[[Document], Cleaned] | None:
        """What makes a raw document's text plain; a string is the reason for a drop. None: it is plain already."""
        return cast(Callable[[Document], Cleaned], _function(self.cleaner)) if self.cleaner else None


def _function(address: str) -> Callable[..., Any]:
    module, _, name = address.partition(":")
    return cast(Callable[..., Any], getattr(import_module(f"megadec.corpus.{module}"), name))


_WIKIPEDIA = "CC-BY-SA-4.0"
_WEB = "clean.web:clean_web"
SOURCES: Sequence[Source] = (
    Source(
        "zhwiki",
        "sources.zhwiki:read_zhwiki",
        "MediaWiki export (.xml, .bz2, multistream)",
        cleaner="clean.wikitext:clean_wikitext",
        licence=_WIKIPEDIA,
    ),
    Source(
        "wikiextractor",
        "sources.jsonl:read_jsonl",
        "Wikipedia text that was extracted before: JSON lines of WikiExtractor, or paragraphs in SQuAD form",
        cleaner="clean.extracted:clean_extracted",
        licence=_WIKIPEDIA,
    ),
    Source(
        "thucnews",
        "sources.thucnews:read_thucnews",
        "category folders of .txt, or title<TAB>label lists, whose documents have the source titles",
        _WEB,
        rules_of=(("titles", "short"),),
    ),
    Source("comments", "sources.comments:read_comments", "CSV or TSV with a header line", _WEB, rules="short"),
    Source("jsonl", "sources.jsonl:read_jsonl", "a JSON object a line, or paragraphs in SQuAD form", _WEB),
    Source("parquet", "sources.parquet:read_parquet", "Parquet with a column of text, or documents of an earlier run"),
    Source("text", "sources.text:read_text", "plain text: a file or so many lines a document"),
    Source(
        "markdown",
        "sources.markdown:read_markdown",
        "Markdown with HTML in it: a file or a section a document",
        cleaner="clean.markdown:clean_markdown",
    ),
    Source("sgml", "sources.sgml:read_sgml", "Sogou Lab news: <doc> elements without a root", _WEB),
    Source("documents", "sources.parquet:read_prepared", "documents of an earlier run", rules="none", prepared=True),
)
_BY_NAME = {source.name: source for source in SOURCES}


def find_source(name: str) -> Source:
    """The source called `name`. Raises ConfigError with the nearest name for one that does not exist."""
    if name not in _BY_NAME:
        known = ", ".join(_BY_NAME)
        raise ConfigError(f"source={name}: no such source{suggest(name, _BY_NAME)}; the sources are {known}")
    return _BY_NAME[name]
