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
CSV_QUOTES = ("auto", "yes", "no")
FILES_READ, UNDECODABLE = "files read", "undecodable_file"
MOST_KEY_SETS = 1000  # of a file's objects: what is remembered of them


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read the input files.

    Attributes:
        encoding: utf-8, gb18030 (also gbk, gb2312), big5, utf-16, utf-32, or auto (decided for each file and counted).
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
        csv_quotes: whether quotation marks hold fields of a table together: auto (in CSV, not in TSV), yes, no.
        malformed_fraction: malformed lines are dropped up to this share of a file's lines, and files in another
            encoding up to this share of the files; more is an error.
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
    csv_quotes: str = "auto"
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


def check_files(report: CorpusReport, options: ReadOptions) -> None:
    """Raise InputError where more files than the allowed share were in another encoding; when all pieces are read."""
    wrong, files = report.dropped[UNDECODABLE], report.notes[FILES_READ]
    if wrong > options.malformed_fraction * files:
        known = options.encoding == "auto"
        raise InputError(
            f"{report.samples[UNDECODABLE][0]}; {wrong} of {files} files cannot be decoded, more than "
            f"{options.malformed_fraction:.2%} (--malformed_fraction): "
            f"{'leave such files out with --exclude' if known else 'try --encoding auto'}"
        )


# Several with commas: all of them that are there, as for --text_field.
FIELD_GUESSES = {
    "text_field": (
        "text", "content", "review", "comment", "sentence", "body", "article", "passage", "answer",
        "raw_content", "context", "context_text", "abstract", "abst",
        "text_a,text_b", "sentence1,sentence2", "instruction,input,output", "prompt,response",
        "conversations", "messages",
        "正文", "内容", "评论", "段落", "文本", "答",
    ),
    "title_field": ("title", "标题", "问", "question"),
    "label_field": ("label", "category", "datatype", "标签", "类别"),
    "url_field": ("url",),
    "id_field": ("id", "docno", "news_id", "qid", "uniquekey", "文件名"),
}  # fmt: skip
# In a list of objects as a text: what each holds of it (MNBVC: 段落: [{"行号": 1, "内容": ...}]).
_PART_KEYS = ("text", "content", "value", "内容")


class FieldMapping:
    """Which columns or keys become a document's parts: those that were asked for, else the usual names that are there.

    Rows may have other keys than the first. Raises InputError when columns are given and one that was asked for, or
    any column of text, is missing among them.
    """

    def __init__(self, options: ReadOptions, name: str, columns: Sequence[str] = ()) -> None:
        self._options = options
        self._name = name
        self._by_keys: dict[tuple[str, ...], dict[str, tuple[str, ...]]] = {}
        self._seen: set[str] = set()
        self._hint = " (the first line of a table is a header that names its columns)" if columns else ""
        if columns:
            self._choose(tuple(columns))
            self.check_seen()

    def document(self, row: Mapping[str, object], *, default_id: str, source: str) -> Document:
        """The document that a row makes; missing and null values are empty.

        Raises ValueError that says what is wrong for a row without a key of text, and for a value that is no text.
        """
        keys = tuple(row)
        chosen = self._by_keys.get(keys) or self._choose(keys)
        if not chosen["text_field"]:
            asked = _asked(self._options, "text_field")
            has = ", ".join(keys) or "no keys"
            if asked:
                raise ValueError(f"no {' or '.join(map(repr, asked))}{suggest(asked[0], keys)} in it; it has {has}")
            raise ValueError(f"no text among {has}; name it with --text_field")
        parts = {option: [_plain(row[key], key) for key in found] for option, found in chosen.items()}
        return Document(
            id="".join(parts["id_field"]) or default_id,
            source=source,
            text="\n".join(part for part in parts["text_field"] if part),
            title=" ".join(filter(None, parts["title_field"])),
            label=" ".join(filter(None, parts["label_field"])),
            url="".join(parts["url_field"]),
        )

    def check_seen(self) -> None:
        """Raise InputError where no row had a field that was asked for, or any field of text."""
        if not self._by_keys:
            return
        for option in FIELD_GUESSES:
            for field in _asked(self._options, option):
                if field not in self._seen:
                    known = sorted(self._seen)
                    columns = f"no column {field!r}{suggest(field, known)}; it has {', '.join(self._seen_in_order())}"
                    raise InputError(f"{self._name}: {columns}")
        if not any(chosen["text_field"] for chosen in self._by_keys.values()):
            found = ", ".join(self._seen_in_order())
            raise InputError(f"{self._name}: no column of text among {found}; name it with --text_field{self._hint}")

    def _seen_in_order(self) -> list[str]:
        return list(dict.fromkeys(key for keys in self._by_keys for key in keys))

    def _choose(self, keys: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
        known = {key.lower(): key for key in keys}
        chosen = {}
        for option, guesses in FIELD_GUESSES.items():
            asked = _asked(self._options, option)
            usual = (tuple(known[part] for part in guess.split(",") if part in known) for guess in guesses)
            guessed = next(filter(None, usual), ())
            chosen[option] = tuple(key for key in asked if key in keys) if asked else guessed
        self._seen.update(keys)
        if len(self._by_keys) < MOST_KEY_SETS:
            self._by_keys[keys] = chosen
        return chosen


def _asked(options: ReadOptions, option: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in str(getattr(options, option)).split(",") if part.strip())


def _plain(value: object, key: str) -> str:
    """A value as text: a list's parts a line each. Raises ValueError for an object and for bytes that are not UTF-8."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN, as which tables have what is missing
        return ""
    if isinstance(value, (list, tuple)):
        return "\n".join(filter(None, (_plain(_part(entry), key) for entry in value)))
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, Mapping):
        raise ValueError(f"{key!r} is an object with {', '.join(map(str, value)) or 'nothing'}, not a text")
    return str(value)


def _part(entry: object) -> object:
    if isinstance(entry, Mapping):
        return next((entry[key] for key in _PART_KEYS if key in entry), entry)
    return entry
