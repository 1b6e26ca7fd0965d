"""Turns a table of data into lines, a line a row, and drops boxes, layout tables and tables of numbers.

A table is kept if it has the class wikitable or header cells, and enough Han characters.
"""

import re
from collections.abc import Callable, Iterator

from mwparserfromhell.nodes import Tag
from mwparserfromhell.wikicode import Wikicode

from megadec.corpus.clean.protect import LINE_BREAK

_BOX = re.compile(
    r"infobox|navbox|metadata|ambox|toc|vertical-navbox|noprint|presentation|succession|plainlinks|sidebar|mbox|"
    r"messagebox|geography|biota|display\s*:\s*none",
    re.I,
)
_HAN = re.compile(r"[\u3400-\u9fff]")
_LEAST_HAN_FRACTION = 0.2
_LEAST_ROWS = 2


def render_table(table: Tag, render: Callable[[Wikicode], str]) -> str:
    """The rows of a data table as lines, or an empty string for a box, a layout table or one of numbers."""
    if not _shows_data(table):
        return ""
    rows = [line for row in _rows(table.contents) if (line := _line(row, render))]
    text = "\n".join(rows)
    if len(rows) < _LEAST_ROWS or len(_HAN.findall(text)) < _LEAST_HAN_FRACTION * len(re.sub(r"[\s|]", "", text)):
        return ""
    return f"\n{text}\n"


def _shows_data(table: Tag) -> bool:
    attributes = " ".join(str(attribute) for attribute in table.attributes)
    if _BOX.search(attributes):
        return False
    return "wikitable" in attributes or any(str(cell.tag) == "th" for row in _rows(table.contents) for cell in row)


def _rows(contents: Wikicode) -> Iterator[list[Tag]]:
    """Rows of cells; cells before the first row mark make a row of their own, a caption one too."""
    loose: list[Tag] = []
    for node in contents.nodes if contents else ():
        if not isinstance(node, Tag):
            continue
        name = str(node.tag).strip().lower()
        if _is_caption(node):
            yield [node]
        elif name in ("td", "th"):
            loose.append(node)
        elif name in ("tr", "tbody", "thead"):
            if loose:
                yield loose
                loose = []
            yield from _rows(node.contents)
    if loose:
        yield loose


def _is_caption(cell: Tag) -> bool:
    """`|+ caption`: the parser knows no captions and takes it for a cell that begins with a plus."""
    if str(cell.wiki_markup or "") != "|":
        return False
    first = cell.attributes[0] if cell.attributes else cell.contents
    return str(first or "").lstrip().startswith("+")


def _line(cells: list[Tag], render: Callable[[Wikicode], str]) -> str:
    texts = []
    for cell in cells:
        words = " ".join(render(cell.contents).replace(LINE_BREAK, " ").split()) if cell.contents else ""
        if _is_caption(cell):
            words = words.removeprefix("+").strip()
        if words:
            texts.append(words)
    return " | ".join(texts)
