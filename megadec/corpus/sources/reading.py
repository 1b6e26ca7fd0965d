"""What every reader shares: the options that say how to read, and the limit on malformed lines.

In: options from the command line. Out: the same, checked where they are used. One flat set of options for all sources,
most of which a given source ignores, so that a command line stays short.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megadec.common.errors import InputError, suggest
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport

MALFORMED_ALLOWED = 10


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read the input files.

    Attributes:
        encoding: utf-8, gb18030 (also gbk, gb2312), big5, utf-16, or auto (decided for each file and counted).
        include: read only the files of a folder or archive whose path matches one of these patterns.
        exclude: leave out the files whose path matches one of these patterns.
        text_field: the column or key of the text; several with commas are joined by a newline.
        title_field: the column or key of the title.
        label_field: the column or key of the label.
        url_field: the column or key of the address.
        id_field: the column or key of the document's id.
        lines_per_document: plain text: this many lines make a document; 0: a file is a document.
        split_level: Markdown: a document begins at each heading down to this level; 0: a file is a document.
        class_file: names of the classes of `title<TAB>label` lists; default: class.txt beside the list.
        malformed_fraction: malformed lines are dropped up to this share of a file's lines; more is an error.
    """

    encoding: str = "utf-8"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    text_field: str = ""
    title_field: str = ""
    label_field: str = ""
    url_field: str = ""
    id_field: str = ""
    lines_per_document: int = 0
    split_level: int = 0
    class_file: str = ""
    malformed_fraction: float = 0.01


@dataclass
class LineCheck:
    """Counts the lines of one file and drops malformed ones, a few of which every real dump has.

    The first 10 are always allowed; past that and `fraction` of the lines so far the file is taken to be something
    else, and InputError names the line.
    """

    name: str
    source: str
    report: CorpusReport
    fraction: float
    malformed: int = 0

    def drop(self, line: str, number: int, found: str) -> None:
        """Drop line `number` (from 1) because of what was `found`. Raises InputError past the limit."""
        self.malformed += 1
        self.report.drop(Document(f"{self.name}:{number}", self.source, line), "malformed_line")
        if self.malformed > max(MALFORMED_ALLOWED, self.fraction * number):
            raise InputError(
                f"{self.name}: line {number}: {found}; {self.malformed} of {number} lines are malformed, more than "
                f"{self.fraction:.2%} (--malformed_fraction): is it another format or source?"
            )


FIELD_GUESSES = {
    "text_field": ("text", "content", "review", "comment", "sentence", "body", "正文", "内容", "评论"),
    "title_field": ("title", "标题"),
    "label_field": ("label", "category", "标签", "类别"),
    "url_field": ("url",),
    "id_field": ("id", "docno"),
}


class FieldMapping:
    """Which columns or keys become a document's parts: those that were asked for, else the usual names that are there.

    Raises InputError when a column that was asked for, or any column of text, is missing.
    """

    def __init__(self, options: ReadOptions, columns: Sequence[str], name: str) -> None:
        self._chosen = {option: _choose(option, options, columns, name) for option in FIELD_GUESSES}
        if not self._chosen["text_field"]:
            raise InputError(f"{name}: no column of text among {', '.join(columns)}; name it with --text_field")

    def document(self, row: Mapping[str, object], *, default_id: str, source: str) -> Document:
        """The document that a row makes; missing and null values are empty."""
        parts = {
            option: ["" if row.get(key) is None else str(row[key]) for key in keys]
            for option, keys in self._chosen.items()
        }
        return Document(
            id="".join(parts["id_field"]) or default_id,
            source=source,
            text="\n".join(part for part in parts["text_field"] if part),
            title=" ".join(parts["title_field"]),
            label=" ".join(parts["label_field"]),
            url="".join(parts["url_field"]),
        )


def _choose(option: str, options: ReadOptions, columns: Sequence[str], name: str) -> tuple[str, ...]:
    wanted = tuple(part.strip() for part in str(getattr(options, option)).split(",") if part.strip())
    for column in wanted:
        if column not in columns:
            raise InputError(f"{name}: no column {column!r}{suggest(column, columns)}; it has {', '.join(columns)}")
    if wanted:
        return wanted
    known = {column.lower(): column for column in columns}
    return next(((known[guess],) for guess in FIELD_GUESSES[option] if guess in known), ())
