"""What a run of the corpus pipeline is asked for, and the check that it fits together before any text is read.

One flat list of options for every source; the check finds those that contradict each other, not those that a source
ignores.
"""

import os
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path

from megadec.common.errors import ConfigError, InputError, check_choice, check_range
from megadec.common.log import logger
from megadec.corpus.clean.glossary import groups_of
from megadec.corpus.clean.social import SocialOptions, removed_forms
from megadec.corpus.dedup.options import DedupOptions, check_dedup
from megadec.corpus.document import documents_only
from megadec.corpus.privacy import PrivacyOptions, masked_kinds
from megadec.corpus.quality.classifier import load_classifier
from megadec.corpus.quality.rules import FilterOptions, choose_rules
from megadec.corpus.shards import check_folder
from megadec.corpus.sources import find_source
from megadec.corpus.sources.encoding import check_encoding
from megadec.corpus.sources.files import unmatched
from megadec.corpus.sources.parquet import is_prepared
from megadec.corpus.sources.places import Place, exists, place_of
from megadec.corpus.sources.reading import CSV_QUOTES, ReadOptions

VARIANTS = ("keep", "zh-Hans", "zh-Hant")
LARGEST_DEFAULT_WORKERS = 16

log = logger(__name__)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions(ReadOptions):
    """One run of the corpus pipeline, beside how its files are read.

    Attributes:
        source: what the files are: zhwiki, wikiextractor, thucnews, comments, jsonl, parquet, text, markdown, sgml,
            html, documents.
        input: files or folders of that kind, here or at an address that fsspec knows (s3://, https://, hf://).
        documents: folder for NAME.parquet and its reports (NAME.report.json, .html), or the .parquet file itself.
        tokenizer: a tokenizer.model, or the folder of a model with a tokenizer of its own (added tokens,
            tokenizer.json); with it shards are written.
        output: folder for the shards.
        held_out_fraction: share of the documents that is kept from training, chosen by a hash of their text.
        held_out: folder for that share: shards with a tokenizer, otherwise NAME.parquet.
        exclude_texts: files whose texts must not be learned: documents in .parquet, or a text a line.
        decontaminate: evaluation sets, files or folders of any form: documents that hold a text of theirs are dropped.
        name: what the documents' source is called; default: the source.
        licence: their licence, where the source does not say.
        variant: keep, or convert all to zh-Hans or zh-Hant: texts, titles, and the words that wiki pages set by hand.
        conversion_groups: a file of words by group, beside our own, for pages that name their groups (`G1=IT`).
        workers: processes that clean; 0: as many as there are processors.
        overwrite: replace what is there.
        explain: the id of a document: show it at every stage, with the rules and figures that decide; write nothing.
        filter: quality rules and their thresholds.
        dedup: what counts as a duplicate, and which one stays.
        social: forms of comments that are taken out.
        privacy: private data that is masked.
    """

    source: str
    input: tuple[str | Path, ...]
    documents: Path | None = None
    tokenizer: Path | None = None
    output: Path | None = None
    held_out_fraction: float = 0.0
    held_out: Path | None = None
    exclude_texts: tuple[Path, ...] = ()
    decontaminate: tuple[Path, ...] = ()
    name: str = ""
    licence: str = ""
    variant: str = "keep"
    conversion_groups: Path | None = None
    workers: int = 0
    overwrite: bool = False
    explain: str = ""
    filter: FilterOptions = field(default_factory=FilterOptions)
    dedup: DedupOptions = field(default_factory=DedupOptions)
    social: SocialOptions = field(default_factory=SocialOptions)
    privacy: PrivacyOptions = field(default_factory=PrivacyOptions)

    @property
    def processes(self) -> int:
        """How many processes work."""
        return self.workers or min(len(os.sched_getaffinity(0)), LARGEST_DEFAULT_WORKERS)

    @property
    def documents_file(self) -> Path | None:
        """The file of documents, where one is wanted."""
        return self._file_at(self.documents)

    @property
    def report_file(self) -> Path | None:
        """The report beside the file of documents."""
        return self.documents_file.with_suffix(".report.json") if self.documents_file else None

    @property
    def dropped_file(self) -> Path | None:
        """The list of dropped documents beside the file of documents; without that one it lies in `output`."""
        return self.documents_file.with_suffix(".dropped.parquet") if self.documents_file else None

    @property
    def duplicates_file(self) -> Path | None:
        """The list of duplicates beside the file of documents."""
        return self.documents_file.with_suffix(".duplicates.parquet") if self.documents_file else None

    @property
    def page_file(self) -> Path | None:
        """The report as a page, beside the file of documents; without that one it lies in `output`."""
        return self.documents_file.with_suffix(".report.html") if self.documents_file else None

    @property
    def work_folder(self) -> Path:
        """Where a run keeps what is done, beside its main result."""
        place = self.output or self.documents_file
        assert place is not None, "check_options has seen that there is a result"
        return place.with_name(f".{place.name}.work")

    @property
    def files_read(self) -> tuple[Place, ...]:
        """What a run reads beside the tokenizer."""
        others = (self.conversion_groups, self.filter.classifier, Path(self.class_file) if self.class_file else None)
        return (
            *map(place_of, self.input),
            *self.exclude_texts,
            *self.decontaminate,
            *self.dedup.against,
            *(path for path in others if path),
        )

    @property
    def held_out_file(self) -> Path | None:
        """The file of held-out documents, where one is wanted."""
        return None if self.tokenizer else self._file_at(self.held_out)

    def _file_at(self, place: Path | None) -> Path | None:
        return place if place is None or place.suffix == ".parquet" else place / f"{self.name or self.source}.parquet"


def check_options(options: PrepareOptions) -> str:
    """Check all that can be checked before any text is read; the source's name. Raises ConfigError, InputError.

    Whether results exist is another check: `check_free`.
    """
    source = find_source(options.source)
    check_encoding(options.encoding)
    choose_rules(options.filter, source.rules)
    removed_forms(options.social, source.social)
    masked_kinds(options.privacy)
    _check_values(options)
    groups = (options.conversion_groups,) if options.conversion_groups else ()
    for path in options.files_read:
        if not exists(path):
            raise InputError(f"{path}: no such file or folder")
    if options.filter.classifier:
        load_classifier(options.filter.classifier)
    for path in groups:
        groups_of(str(path))
    for path in options.dedup.against:
        if path.suffix != ".parquet" and not path.is_dir():
            raise ConfigError(f"dedup.against={path}: neither a .parquet file of documents nor a folder of them")
        if not documents_only([path]):
            raise ConfigError(f"dedup.against={path}: a list beside documents; give the documents' own file")
        if not is_prepared(path, ReadOptions()):
            raise ConfigError(f"dedup.against={path}: a table, not documents that prepare wrote")
    _check_patterns(options)
    if options.source == "parquet" and all(is_prepared(path, options) for path in options.input):
        return "documents"
    return options.source


def _check_patterns(options: PrepareOptions) -> None:
    """A pattern without a file is a slip where others have some; where none has, reading says what was found."""
    unread = unmatched(options.input, options.include)
    if unread and len(unread) < len(options.include):
        raise ConfigError(f"include={unread[0]}: no path in the input's folders matches this pattern")
    for pattern in unmatched(options.input, options.exclude):
        log.warning("--exclude %s leaves nothing out: no path in the input's folders matches it", pattern)


def _check_values(options: PrepareOptions) -> None:
    if not options.input:
        raise ConfigError("input: no file was given")
    check_choice("variant", options.variant, VARIANTS)
    check_choice("csv_quotes", options.csv_quotes, CSV_QUOTES)
    check_range(options, "", "malformed_fraction", least=0, most=1)
    if (options.tokenizer is None) != (options.output is None):
        raise ConfigError("tokenizer and output go together: both for shards, none for documents only")
    if options.output is None and options.documents is None and not options.explain:
        raise ConfigError("nothing to write: give documents (a folder), or tokenizer and output (for shards), or all")
    check_range(options, "", "held_out_fraction", least=0, below=1)
    if (options.held_out is None) != (options.held_out_fraction == 0):
        raise ConfigError("held_out_fraction and held_out go together: how much, and the folder it goes to")
    check_range(options, "", "workers", "lines_per_document", "split_level", least=0)
    check_dedup(options.dedup)
    _check_places(options)


def _results(options: PrepareOptions) -> tuple[list[Path], list[Path]]:
    """The folders and the files that a run writes."""
    folders = (options.output, options.held_out if options.tokenizer else None)
    lists = (options.dropped_file, options.duplicates_file)
    files = (options.documents_file, options.report_file, *lists, options.held_out_file)
    return [folder for folder in folders if folder], [file for file in files if file]


def _check_places(options: PrepareOptions) -> None:
    folders, files = _results(options)
    places = [place.resolve() for place in (*folders, *files)]
    for earlier, place in combinations(places, 2):
        if place.is_relative_to(earlier) or earlier.is_relative_to(place):
            raise ConfigError(f"{place} and {earlier}: two results in one place; choose separate ones")
    here = [path for path in map(place_of, options.input) if isinstance(path, Path)]
    for place, path in product(places, here):
        if path.resolve().is_relative_to(place):
            raise ConfigError(f"{place}: is both input and result")


def check_free(options: PrepareOptions) -> None:
    """Raises ConfigError for a result that exists, unless it may be replaced."""
    folders, files = _results(options)
    for folder in folders:
        check_folder(folder, options.overwrite)
    for file in files:
        if file.exists() and not options.overwrite:
            raise ConfigError(f"{file}: exists already; choose another place or give --overwrite")
