"""Turns a table of data into lines, a line a row, and drops boxes, layout tables and tables of numbers.

A table is kept if it has a class of tables of data, a border, header cells or rows of several cells, and enough Han
characters. Of a layout table the cells with prose, lists and the tables of data inside it stay.
"""

import re

from megadec.corpus.clean.wiki.protect import LINE_BREAK

_BOX = re.compile(
    r"infobox|navbox|metadata|ambox|\btoc\b|vertical-navbox|noprint|presentation|succession|plainlinks|sidebar|mbox|"
    r"messagebox|geography|biota|display\s*:\s*none",
    re.I,
)
_DATA = re.compile(r"wikitable|prettytable|\bborder\s*=\s*[\"']?[1-9]", re.I)
# A box at the side, or of links: its rows are no data, its lists no text.
_ASIDE = re.compile(
    r"toccolours|collapsible|collapsed|float\s*:\s*right|\balign\s*=\s*[\"']?right|clear\s*:\s*right|position\s*:", re.I
)
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_LEAST_HAN_FRACTION = 0.2
_LEAST_ROWS = 2
_PROSE_HAN = 40
_SENTENCE = re.compile("[。！？]")
_LIST_ITEM = re.compile(r"\n[ \t]*[*#][^\n]*[\u3400-\u9fff][^\n]*")
_LIST_MARK = re.compile(r"\n[ \t]*[*#:;]+[ \t]*")
# Attributes that no bar divides from the cell's text, as a cell template leaves them.
_ATTRIBUTES = re.compile(
    r"\s*+(?:(?:(?:style|scope|class|id|lang|dir|abbr|headers|border|bgcolor|data-[\w-]+)\s*+=\s*+(?:\"[^\"]*\"|'[^']*')|"
    r"(?:rowspan|colspan|align|valign|width|height|bgcolor|scope)\s*+=\s*+(?:\"[^\"]*\"|'[^']*'|[\w#%.-]++))(?:\s++|$))+",
    re.I | re.A,
)


class Table:
    """A table under way: rows of finished cells. The cell under way is in the renderer's hands."""

    def __init__(self, attributes: str) -> None:
        self.attributes = attributes
        self.rows: list[list[str]] = []
        self.has_header = False
        self.inner: list[str] = []  # what tables inside this one show
        self.in_cell = self.in_caption = False
        self.may_be_attributes = False  # whether a bar would end the attributes of the cell under way
        self._row: list[str] = []
        self._text: list[str] = []  # cells with prose, and lists in cells: what is kept of a layout table

    def begin_cell(self) -> None:
        """What follows is a cell's, perhaps its attributes."""
        self.in_cell = self.may_be_attributes = True

    def add_cell(self, text: str) -> None:
        """Add a cell's text to the row under way; one without words is skipped."""
        if "=" in text and (match := _ATTRIBUTES.match(text)):
            text = text[match.end() :]
        if words := " ".join(_LIST_MARK.sub(" ", text.replace(LINE_BREAK, "\n")).split()):
            self._row.append(words)
            if not self.says_data:
                self._keep_text(text, words)
        if self.in_caption:  # a row of its own
            self.in_caption = False
            self.end_row()

    def _keep_text(self, text: str, words: str) -> None:
        items = _LIST_ITEM.findall(text)
        if _is_prose(words):
            self._text.append(words)
        elif len(items) > 1:
            self._text.append("".join(items).strip("\n"))

    def end_row(self) -> None:
        """What follows stands in a new row."""
        if self._row:
            self.rows.append(self._row)
            self._row = []

    @property
    def holds_data(self) -> bool:
        """Whether rows and cells are data, not a way to lay out a page."""
        if self.says_data:
            return True
        if self.is_aside:
            return False
        several = sum(len(row) > 1 for row in self.rows)
        return _DATA.search(self.attributes) is not None or (several >= _LEAST_ROWS and 2 * several > len(self.rows))

    @property
    def says_data(self) -> bool:
        """Whether its markup says so: a class or header cells."""
        return self.has_header or "wikitable" in self.attributes

    @property
    def is_aside(self) -> bool:
        """Whether it is a box beside the text."""
        return _ASIDE.search(self.attributes) is not None

    def render(self, within_data: bool = False) -> str:
        """The rows as lines; of a layout table its prose and what tables inside it show; nothing of a box.

        within_data: it stands in a cell of a table of data, so it is that cell's text.
        """
        self.end_row()
        if _BOX.search(self.attributes):
            return ""
        if within_data:
            return "\n".join(" ".join(row) for row in self.rows)
        if self.holds_data:
            lines = [" | ".join(row) for row in self.rows]
            text = "\n".join(lines)
            dense = re.sub(r"[\s|]", "", text)
            shown = len(lines) >= _LEAST_ROWS and len(_HAN.findall(text)) >= _LEAST_HAN_FRACTION * len(dense)
        else:
            text = "\n".join([text for text in self._text if not self.is_aside or _is_prose(text)] or self.inner)
            shown = bool(text)
        return f"\n{text}\n" if shown else ""


def _is_prose(cell: str) -> bool:
    return len(_HAN.findall(cell)) >= _PROSE_HAN and _SENTENCE.search(cell) is not None
