"""THUCNews: articles in category folders, and `title<TAB>label` lists with their class.txt.

In: a folder, .zip or .tar.xz of CATEGORY/NUMBER.txt, or list files. Out: a document an article, or a title. An
article's first line is taken as its title only where the lines after it are indented as that corpus does.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from megadec.common.errors import InputError
from megadec.corpus.document import Document
from megadec.corpus.report.counts import CorpusReport
from megadec.corpus.sources.encoding import filled_lines, lines, whole_text
from megadec.corpus.sources.files import Member, members, reading
from megadec.corpus.sources.reading import LineCheck, ReadOptions

SOURCE = "thucnews"
TITLES = "titles"
SUFFIXES = (".txt",)
LONGEST_TITLE_CHARACTERS = 60
CLASS_FILE = "class.txt"
# The mark that one crawler of Chinese forums put at the end of each post.
END_MARK = "$LOTOzf$"
HEAD_BYTES = 4096
# The first line of a list: no byte of a Chinese character in UTF-8 or GB18030 is a tab or a newline.
_LIST = re.compile(rb"(\r?\n)*[^\t\n]+\t[^\t\n]{1,60}(\n|\Z)")


def read_thucnews(path: Path, report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    """Articles and titles at `path`; the folder above an article, or the class of a list's line, is the label.

    Raises InputError for another encoding, for damage, and for a label that class.txt does not have.
    """
    classes: list[str] | None = None
    for member in members(path, SUFFIXES, options):
        if member.path.name == CLASS_FILE:
            continue
        buffered = io.BufferedReader(cast(io.RawIOBase, member.file), HEAD_BYTES)
        whole = replace(member, file=buffered)
        with reading(member.name):
            is_list = _LIST.match(buffered.peek())
        if is_list:
            classes = class_names(path, report, options) if classes is None else classes
            yield from _titles(whole, classes, report, options)
        else:
            title, body = split_title(whole_text(whole, options, report).rstrip().removesuffix(END_MARK).rstrip())
            yield Document(member.stem, SOURCE, body, title=title, label=member.path.parent.name)


def split_title(text: str) -> tuple[str, str]:
    """(title, body): a short first line that is not indented, before lines that are; else ("", text)."""
    first, newline, rest = text.lstrip("\ufeff\r\n").partition("\n")
    following = rest.lstrip("\r\n")
    titled = 0 < len(first.strip()) <= LONGEST_TITLE_CHARACTERS and not first.startswith(("\u3000", " "))
    if newline and titled and following.startswith(("\u3000", "  ")):
        return first.strip(), rest
    return "", text


def _titles(member: Member, classes: list[str], report: CorpusReport, options: ReadOptions) -> Iterator[Document]:
    check = LineCheck(member.name, TITLES, report, options.malformed_fraction)
    for number, line in filled_lines(member, options.encoding, report):
        title, tab, label = line.rstrip("\n").rpartition("\t")
        if tab and title.strip():
            name = _class_name(label.strip(), classes, member.name, number)
            yield Document(f"{member.stem}:{number}", TITLES, title, label=name)
        else:
            check.drop(line, number, "no title<TAB>label")


def _class_name(label: str, classes: list[str], name: str, number: int) -> str:
    if not classes or not label.isdecimal():
        return label
    if int(label) >= len(classes):
        raise InputError(f"{name}: line {number}: label {label}, but {CLASS_FILE} has {len(classes)} classes")
    return classes[int(label)]


def class_names(path: Path, report: CorpusReport, options: ReadOptions) -> list[str]:
    """Names from `class_file`, or from class.txt in the folder or archive or beside the file; none: labels stay."""
    place = Path(options.class_file) if options.class_file else path
    if not options.class_file and path.is_file() and path.suffix.lower() in SUFFIXES:
        place = path.with_name(CLASS_FILE)
        if not place.is_file():
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
