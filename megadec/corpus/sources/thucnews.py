"""THUCNews: articles in category folders, and lists of titles or articles with their labels.

In: a folder, .zip or .tar.xz of CATEGORY/NUMBER.txt, or lists (`title<TAB>label` with their class.txt, or cnews's
`label<TAB>text`). Out: a document an article, or a title. An article's first line is taken as its title only where the
lines after it are indented as that corpus does.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from megadec.common.errors import InputError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.web import clean_web
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.cuts import LineCuts
from megadec.corpus.sources.encoding import codec_of, filled_lines, lines, whole_text
from megadec.corpus.sources.files import BLOCK_BYTES, Member, members
from megadec.corpus.sources.pieces import FileReader
from megadec.corpus.sources.places import Place, beside, is_file, is_folder, place_of
from megadec.corpus.sources.reading import FIELD_GUESSES, LineCheck, ReadOptions

SOURCE = "thucnews"
TITLES = "titles"
SUFFIXES = (".txt",)
LONGEST_TITLE_CHARACTERS = 60
CLASS_FILE = "class.txt"
# The mark that one crawler of Chinese forums put at the end of each post.
END_MARK = "$LOTOzf$"
_END_MARKS = re.compile(rf"[ \t\u3000]*{re.escape(END_MARK)}[ \t\u3000]*")
LONGEST_LABEL_CHARACTERS = 20
LEAST_TABBED = 0.5  # of the lines of a list that stands alone; in a category's folder nearly all
LEAST_TABBED_IN_FOLDER, LEAST_LINES_IN_FOLDER = 0.9, 3
_LATIN = re.compile("[A-Za-z0-9_./ -]+")
_SENTENCE = re.compile("[，。！？；：,!?;…“”\u3000]")


def news_documents(member: Member, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Articles and titles of a file; the folder above an article, or the class of a list's line, is the label.

    Raises InputError for another encoding, for damage, and for a label that class.txt does not have.
    """
    if member.path.name == CLASS_FILE:
        return
    columns = _list_columns(member, options)
    if columns is None:
        title, body = split_title(whole_text(member, options, report).rstrip())
        yield Document(member.stem, SOURCE, body, title=title, label=member.path.parent.name)
        return
    classes = class_names(member.root, CorpusReport(), options)
    check = LineCheck(member.name, columns.source, report, options.malformed_fraction)
    for number, line in filled_lines(member, options.encoding, report, check):
        label, text = columns.split(line)
        if columns.header and number == 1:
            report.note("header lines of lists")
        elif text and label is not None:
            name = _class_name(label, classes, member.name, number)
            yield Document(f"{member.stem}:{number}", columns.source, text, label=name)
        else:
            check.drop(line, number, f"no {columns.form}")


def clean_news(document: Document, context: CleanContext) -> Document | str:
    """The document without what a crawler left in it, then as `clean_web` leaves it."""
    plain = {}
    for name in ("title", "text"):
        raw = getattr(document, name)
        plain[name] = without_marks(raw)
        if marks := raw.count(END_MARK):
            context.taken.add("crawler marks", len(raw) - len(plain[name]), marks)
    return clean_web(replace(document, **plain), context)


def without_marks(text: str) -> str:
    """`text` without END_MARK, each post on lines of its own."""
    return "\n".join(filter(None, _END_MARKS.split(text))) if END_MARK in text else text


def _cuts(member: Member, options: ReadOptions) -> LineCuts | None:
    return LineCuts(codec_of(member, options.encoding)) if _list_columns(member, options) else None


read_thucnews = FileReader(SUFFIXES, news_documents, _cuts)


@dataclass(frozen=True)
class Columns:
    """Which column of a list is the label, whether the other one holds titles or articles, and whether the first line
    names the columns."""

    label_first: bool
    source: str
    header: bool

    @property
    def form(self) -> str:
        text = "text" if self.source == SOURCE else "title"
        return f"label<TAB>{text}" if self.label_first else f"{text}<TAB>label"

    def split(self, line: str) -> tuple[str | None, str]:
        """(label, text) of a line; None where there is no tab."""
        first, tab, last = line.strip("\n").partition("\t") if self.label_first else line.strip("\n").rpartition("\t")
        label, text = (first, last) if self.label_first else (last, first)
        return (label.strip() if tab else None), text.strip()


def _list_columns(member: Member, options: ReadOptions) -> Columns | None:
    """What a file is by its first megabyte: a list, whose labels are the column that looks most like labels, or None.

    A file whose name is a number in a folder is an article whatever it holds.
    """
    in_folder = len(member.path.parts) > 1
    if b"\t" not in member.head or (in_folder and member.path.stem.isdecimal()):
        return None
    text = member.head.decode(codec_of(member, options.encoding), "replace").removeprefix("\ufeff")
    rows = [row for row in text.splitlines() if row.strip()]
    if len(rows) > 1 and len(member.head) >= BLOCK_BYTES:
        rows.pop()  # the block ends within it
    tabbed = [row for row in rows if "\t" in row.strip()]
    if in_folder:
        is_list = len(rows) >= LEAST_LINES_IN_FOLDER and len(tabbed) >= LEAST_TABBED_IN_FOLDER * len(rows)
    else:
        is_list = bool(tabbed) and (rows[0] is tabbed[0] or len(tabbed) >= LEAST_TABBED * len(rows))
    if not is_list:
        return None
    first = [row.partition("\t")[0].strip() for row in tabbed]
    last = [row.rpartition("\t")[2].strip() for row in tabbed]
    if not (_are_labels(first) or _are_labels(last)):
        return None
    classes = frozenset(class_names(member.root, CorpusReport(), options))
    label_first = named = _header(first[0], last[0])
    if label_first is None:
        reasons = zip(_reasons(first, classes), _reasons(last, classes), strict=True)
        label_first = next((ours > theirs for ours, theirs in reasons if ours != theirs), False)
    texts = [row.partition("\t")[2] if label_first else row.rpartition("\t")[0] for row in tabbed]
    long = sum(map(len, texts)) > LONGEST_TITLE_CHARACTERS * len(texts)
    return Columns(label_first, SOURCE if long else TITLES, named is not None)


def _are_labels(values: Sequence[str]) -> bool:
    """Whether nearly all of a column's values may be labels: short, and no sentences."""
    fitting = sum(0 < len(value) <= LONGEST_LABEL_CHARACTERS and not _SENTENCE.search(value) for value in values)
    return fitting >= LEAST_TABBED_IN_FOLDER * len(values)


def _reasons(values: Sequence[str], classes: frozenset[str]) -> tuple[float, ...]:
    """What makes a column look like labels, the strongest reason first: what may be labels, known classes, numbers,
    words in Latin letters beside Chinese, few values, half the length of the other."""
    width = sum(len(value.encode("gb18030", "replace")) for value in values) / len(values)
    return (
        _are_labels(values),
        bool(classes) and classes.issuperset(values),
        all(value.isdecimal() for value in values),
        all(_LATIN.fullmatch(value) for value in values),
        -len(set(values)),
        -math.floor(math.log2(max(1, width))),
    )


def _header(first: str, last: str) -> bool | None:
    """Whether the label comes first, where a list begins with the names of its columns."""
    labels = FIELD_GUESSES["label_field"]
    texts = ",".join(FIELD_GUESSES["text_field"] + FIELD_GUESSES["title_field"]).split(",")
    if first.lower() in labels and last.lower() in texts:
        return True
    return False if first.lower() in texts and last.lower() in labels else None


def split_title(text: str) -> tuple[str, str]:
    """(title, body): a short first line that is not indented, before lines that are; else ("", text)."""
    first, newline, rest = text.lstrip("\ufeff\r\n").partition("\n")
    following = rest.lstrip("\r\n")
    titled = 0 < len(first.strip()) <= LONGEST_TITLE_CHARACTERS and not first.startswith(("\u3000", " "))
    if newline and titled and following.startswith(("\u3000", "  ")) and following.strip() != END_MARK:
        return first.strip(), rest
    return "", text


def _class_name(label: str, classes: list[str], name: str, number: int) -> str:
    if not classes or not label.isdecimal():
        return label
    if int(label) >= len(classes):
        raise InputError(f"{name}: line {number}: label {label}, but {CLASS_FILE} has {len(classes)} classes")
    return classes[int(label)]


def class_names(path: Place, report: CorpusReport, options: ReadOptions) -> list[str]:
    """Names from `class_file`, or from class.txt in the folder or archive or beside the file; none: labels stay."""
    place = place_of(options.class_file or path)
    if not options.class_file and not is_folder(place) and str(place).lower().endswith(SUFFIXES):
        place = beside(place, CLASS_FILE)
        if not is_file(place):
            return []
    everything = replace(options, include=(), exclude=())
    for member in members(place, SUFFIXES, everything):
        if options.class_file or member.path.name == CLASS_FILE:
            rows = filter(None, map(str.strip, lines(member, options.encoding, report)))
            return [_name_of(row, number) for number, row in enumerate(rows)]
    return []


def _name_of(row: str, number: int) -> str:
    """A class's name from `name`, or from `number<TAB>name`."""
    index, tab, name = row.partition("\t")
    return name.strip() if tab and index.strip() == str(number) else row
