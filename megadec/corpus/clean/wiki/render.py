"""Renders wikitext in one pass over its marks, from the inside out: each character is looked at a bounded number of
times.

What is rendered stands in one list; a link, template or table under way remembers where its part of the list begins.
Marks without a partner go and leave their text. What shows nothing (files, boxes, what nests too deep) is skipped up to
its end without a look inside.

Counted in `taken`: a link, template or table counts what it is written with less what it shows, and less what was
counted inside it.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from megadec.corpus.clean.context import Taken
from megadec.corpus.clean.wiki.links import hidden_kind, link_text, show_plain_links
from megadec.corpus.clean.wiki.protect import OUTSIDE_LABEL, STRAY_ROW
from megadec.corpus.clean.wiki.tables import Table
from megadec.corpus.clean.wiki.tags import TABLE_PARTS, show_tag
from megadec.corpus.clean.wiki.templates.arguments import Page, parameters_of
from megadec.corpus.clean.wiki.templates.expand import expand, has_rule, template_name
from megadec.corpus.clean.wiki.tokens import tag_name, tokenize

# Marks inside each other that are rendered at any length; MediaWiki expands 40 templates. A short page may nest deeper:
# each level costs the length of what stands inside it, and depth times length is bounded.
DEEPEST, DEEPEST_OF_ALL, DEPTH_TIMES_LENGTH = 100, 5_000, 20_000_000
_LONGEST_HEAD = 100


class Section(NamedTuple):
    """A heading (level 0 and no title: the lead) and the text under it up to the next heading, list marks included."""

    level: int
    title: str
    body: str


class _Frame:
    """A link ("[["), template ("{{") or table ("{|") under way: where it begins in the output and among the pieces,
    where its bars stand in the output, what had been counted before it."""

    __slots__ = ("bars", "counted", "kind", "opener", "start", "table")

    def __init__(self, kind: str, opener: int, start: int, counted: int, table: Table | None = None) -> None:
        self.kind, self.opener, self.start, self.counted, self.table = kind, opener, start, counted, table
        self.bars: list[int] = []


def render(wikitext: str, page: Page, taken: Taken) -> list[Section]:
    """The sections of a page as text, with list marks, `LINE_BREAK`, `OUTSIDE_LABEL` and `STRAY_ROW` in it."""
    plain, links = show_plain_links(f"\n{wikitext}")
    if links:
        taken.add("links", 1 + len(wikitext) - len(plain), links)
    return _Renderer(plain, page, taken).sections()


class _Renderer:
    def __init__(self, wikitext: str, page: Page, taken: Taken) -> None:
        self._pieces, self._ends, self._partners = tokenize(wikitext)
        self._page = page
        self._taken = taken
        self._deepest = min(DEEPEST_OF_ALL, max(DEEPEST, DEPTH_TIMES_LENGTH // (len(wikitext) + 1)))
        self._counted = 0  # characters in all
        self._characters: Counter[str] = Counter()
        self._numbers: Counter[str] = Counter()
        self._out: list[str] = []
        self._frames: list[_Frame] = []
        self._sections: list[Section] = []
        self._heading = (0, "")

    def sections(self) -> list[Section]:
        pieces, out = self._pieces, self._out
        bracket, braces, bar, tag, closing = self._bracket, self._braces, self._line_or_bar, self._tag, self._closing
        render_mark = {"[": bracket, "{": braces, "|": bar, "!": bar, "\n": bar, "<": tag, "]": closing, "}": closing}
        last = len(pieces) - 1
        index = 0
        while index < last:
            if text := pieces[index]:
                out.append(text)
            mark = pieces[index + 1]
            index = render_mark[mark[0]](mark, index + 1) + 1
        out.append(pieces[last])
        while self._frames:
            self._cut_table(last + 1)
        self._end_section(0, "")
        for kind, characters in self._characters.items():
            self._taken.add(kind, characters, self._numbers[kind])
        return self._sections

    # Each of these renders the mark at `index`, and returns the place of the last piece that is used up with it.

    def _closing(self, mark: str, index: int) -> int:
        if mark == "]":
            if index not in self._partners:
                self._out.append(mark)
        elif index in self._partners:
            self._close(index)
        return index

    # Links

    def _bracket(self, mark: str, index: int) -> int:
        if mark[1] != "[":
            _, _, label = mark.rstrip("]").partition(" ")
            label = OUTSIDE_LABEL + label.strip()
            self._count("external links", len(mark) - len(label))
            self._out.append(label)
        elif len(mark) > 2:
            target, bar, label = mark[2:-2].partition("|")
            text, kind = link_text(target, label if bar else None)
            self._out.append(text)
            self._count(kind, len(mark) - len(text))
        elif index not in self._partners:
            return self._skip_head(index)
        elif kind := self._hidden_link(index):
            return self._skip(index, kind)
        else:
            self._open("[[", index)
        return index

    def _hidden_link(self, index: int) -> str:
        """What a link that shows nothing is counted as; an empty string for others."""
        if len(self._frames) >= self._deepest:
            return "links"
        namespace, colon, _ = self._pieces[index + 1].partition(":")
        return hidden_kind(namespace.strip().lower()) if colon else ""

    def _close_link(self, frame: _Frame) -> tuple[str, str]:
        out = self._out
        bar = frame.bars[0] if frame.bars else len(out)
        target = "".join(out[frame.start : bar])
        label = "".join(out[bar + 1 :]) if frame.bars else None
        if label is None and "|" in target:  # [[甲{{!}}乙]]
            target, _, label = target.partition("|")
        if "\n" in target:  # no link: its brackets go
            return target if label is None else f"{target}|{label}", "markup"
        return link_text(target, label)

    # Templates

    def _braces(self, mark: str, index: int) -> int:
        if mark.startswith("{{{") and len(mark) > 3:
            default = mark[3:-3].partition("|")[2]
            self._out.append(default)
            self._count("templates", len(mark) - len(default))
        elif len(mark) > 2:
            name, *values = mark[2:-2].split("|")
            if has_rule(name):
                self._show_template(name, [[value] for value in values], index, len(mark))
            else:
                self._note_unknown(name, index)
                self._count("templates", len(mark))
        elif index not in self._partners:
            return self._skip_head(index)
        elif len(self._frames) >= self._deepest or self._shows_nothing(index):
            self._note_unknown(self._pieces[index + 1], index)
            return self._skip(index, "templates")
        else:
            self._open("{{", index)
        return index

    def _shows_nothing(self, index: int) -> bool:
        """Whether the template that opens here has a name in plain text for which there is no rule."""
        name, following = self._pieces[index + 1 : index + 3]
        return following.lstrip()[:1] in ("|", "}") and not name.startswith("{") and not has_rule(name)

    def _note_unknown(self, name: str, index: int) -> None:
        """Count the name of a template without a rule that stands behind words, where it may have been words too."""
        before = self._pieces[index - 1]
        if before and before[-1] not in "\n \t" and not self._frames:
            self._taken.unknown[template_name(name)[:_LONGEST_HEAD]] += 1

    def _close_template(self, frame: _Frame, index: int) -> None:
        out = self._out
        bounds = [*frame.bars, len(out)]
        name = "".join(out[frame.start : bounds[0]])
        values = [out[start + 1 : end] for start, end in pairwise(bounds)]
        del out[frame.start :]
        written = self._ends[index] - self._ends[frame.opener - 1] - (self._counted - frame.counted)
        self._show_template(name, values, index, written)

    def _show_template(self, name: str, values: Sequence[list[str]], index: int, written: int) -> None:
        """Append what a template shows, and count the rest of the `written` characters.

        `values` are the arguments in pieces; an equals sign in the first piece ends a name.
        """
        if name.startswith("{") and self._pieces[index + 1].startswith("}"):  # {{{a|b}}} with something inside
            self._pieces[index + 1] = self._pieces[index + 1][1:]
            text: str | None = "".join(values[0]) if values else ""
        else:
            in_table = any(frame.table is not None for frame in self._frames)
            text = expand(name, parameters_of(values), self._page, in_table=in_table)
        if text:
            self._out.append(text)
        self._count("templates", written - len(text or ""))

    # Tables, bars, headings

    def _line_or_bar(self, mark: str, index: int) -> int:
        if mark.startswith("\n="):
            self._heading_line(mark, index)
            return index
        if "{|" in mark:
            return self._open_table(mark.partition("{|")[2], index)
        if mark.endswith("|}") and mark[0] == "\n":
            if index in self._partners:
                self._close(index)
            else:
                self._out.append(f"\n{STRAY_ROW}")
            return index
        frame = self._frames[-1] if self._frames else None
        if frame is None:
            self._out.append(f"\n{STRAY_ROW}" if mark[0] == "\n" and mark[-1] == "|" else mark)
        elif frame.table is not None:
            self._table_mark(frame, frame.table, mark, index)
        elif mark[-1] == "!" or (frame.kind == "[[" and frame.bars):
            self._out.append(mark)
        else:
            self._bar(frame, mark)
        return index

    def _bar(self, frame: _Frame, mark: str) -> None:
        """A bar between the arguments of a template, or before the label of a link."""
        if mark[0] == "\n":
            self._out.append("\n")
        for _ in range(mark.count("|")):
            frame.bars.append(len(self._out))
            self._out.append("|")

    def _open_table(self, attributes: str, index: int) -> int:
        self._out.append("\n")
        if len(self._frames) >= self._deepest:
            return self._skip(index, "tables") if index in self._partners else index
        self._frames.append(_Frame("{|", index, len(self._out), self._counted, Table(attributes)))
        return index

    def _table_mark(self, frame: _Frame, table: Table, mark: str, index: int) -> None:
        """`|-`, `|+`, `|`, `||`, `!` and `!!` inside a table."""
        following = self._pieces[index + 1]
        if mark[0] == "\n":
            self._end_cell(frame, table)
            if mark[-1] == "|" and following[:1] in ("-", "+"):
                table.end_row()
                # A row's attributes go up to the end of the line; a caption is a row of its own.
                line = following.find("\n") if following[0] == "-" else 1
                self._pieces[index + 1] = following[line:] if line >= 0 else ""
                table.in_cell = table.in_caption = table.may_be_attributes = following[0] == "+"
                return
            table.has_header |= mark[-1] == "!"
            table.begin_cell()
        elif mark == "|" and table.may_be_attributes:
            table.may_be_attributes = False
            if any("\n" in part for part in self._out[frame.start :]):
                self._out.append(mark)
            else:
                del self._out[frame.start :]
        elif mark == "||" or (mark == "!!" and table.has_header):
            self._end_cell(frame, table)
            table.begin_cell()
        else:
            self._out.append(mark)

    def _end_cell(self, frame: _Frame, table: Table) -> None:
        """Give the table the cell under way; what stands between a row's mark and its first cell is none."""
        if table.in_cell:
            table.add_cell("".join(self._out[frame.start :]))
        del self._out[frame.start :]

    def _close_table(self, frame: _Frame, table: Table) -> str:
        self._end_cell(frame, table)
        outer = next((other.table for other in reversed(self._frames) if other.table is not None), None)
        text = table.render(within_data=outer is not None and outer.holds_data)
        if outer is not None and text:
            outer.inner.append(text.strip("\n"))
        return text

    def _heading_line(self, mark: str, index: int) -> None:
        line = mark.strip()
        level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")), 6, (len(line) - 1) // 2)
        title = line[level:-level].strip() if level else ""
        if not title:
            self._out.append(mark)
            return
        if any(character in title for character in "[{<"):
            inner = _Renderer(title, self._page, self._taken)
            title = " ".join(section.body for section in inner.sections())
            self._counted += inner._counted
        while self._frames and self._frames[-1].opener not in self._partners:
            self._cut_table(index)
        if self._frames:
            self._out.append(f"\n{title}\n")
        else:
            self._end_section(level, title)

    def _end_section(self, level: int, title: str) -> None:
        """End the section under way; the next one has this heading."""
        self._sections.append(Section(*self._heading, "".join(self._out)))
        self._out.clear()
        self._heading = (level, title)

    # HTML

    def _tag(self, mark: str, index: int) -> int:
        name = tag_name(mark)
        if name == "table":
            return self._open_table(mark, index)
        frame = self._frames[-1] if self._frames else None
        if name.removeprefix("/") in TABLE_PARTS:
            if name == "/table" and index in self._partners:
                self._close(index)
            elif frame is not None and frame.table is not None:
                self._table_tag(frame, frame.table, name)
            return index
        pieces = self._pieces
        following = pieces[index + 2] if index + 2 < len(pieces) else ""
        shown, used = show_tag(mark, pieces[index + 1], following)
        if shown:
            self._out.append(shown)
        return index + 2 if used else index

    def _table_tag(self, frame: _Frame, table: Table, name: str) -> None:
        self._end_cell(frame, table)
        if name in ("tr", "/tr", "caption", "/caption"):
            table.end_row()
        table.has_header |= name == "th"
        table.in_cell, table.in_caption = name in ("td", "th", "caption"), name == "caption"
        table.may_be_attributes = False

    # What all frames share

    def _open(self, kind: str, index: int) -> None:
        self._frames.append(_Frame(kind, index, len(self._out), self._counted))

    def _close(self, index: int) -> None:
        """Close the frame whose partner stands at `index`; tables inside it that have no end, end here."""
        while self._frames[-1].opener != self._partners[index]:
            self._cut_table(index)
        frame = self._frames.pop()
        if frame.kind == "{{":
            self._close_template(frame, index)
            return
        if frame.table is not None:
            text, kind = self._close_table(frame, frame.table), "tables"
        else:
            text, kind = self._close_link(frame)
        del self._out[frame.start :]
        self._out.append(text)
        self._count_frame(kind, frame, index, text)

    def _cut_table(self, index: int) -> None:
        """End a table that has no end before `index`: what follows the last cell's first line is no part of it."""
        frame = self._frames.pop()
        assert frame.table is not None
        cell, line_end, rest = "".join(self._out[frame.start :]).partition("\n")
        self._out[frame.start :] = [cell]
        text = f"{self._close_table(frame, frame.table)}{line_end}{rest}"
        self._out.append(text)
        self._count_frame("tables", frame, index - 1, text)

    def _skip(self, index: int, kind: str) -> int:
        """Leave out what the mark at `index` opens, up to its end."""
        end = self._partners[index]
        self._count(kind, self._ends[end] - self._ends[index - 1])
        return end

    def _skip_head(self, index: int) -> int:
        """An opening mark without its end goes with the target or name after it."""
        text, following = self._pieces[index + 1], self._pieces[index + 2 : index + 3]
        line, bar = text.find("\n"), bool(following) and following[0].lstrip("\n \t")[:1] == "|"
        if line < 0 and bar and len(text) <= _LONGEST_HEAD:
            if following[0][0] != "\n":
                return index + 2
            self._pieces[index + 1] = ""
        if 0 <= line <= _LONGEST_HEAD and self._pieces[index] == "{{":
            self._pieces[index + 1] = text[line:]
        return index

    def _count_frame(self, kind: str, frame: _Frame, last: int, text: str) -> None:
        """Count a frame that ends with the piece `last` and shows `text`."""
        written = self._ends[last] - self._ends[frame.opener - 1]
        self._count(kind, written - (self._counted - frame.counted) - len(text))

    def _count(self, kind: str, characters: int) -> None:
        if kind != "markup":
            self._characters[kind] += characters
            self._numbers[kind] += 1
            self._counted += characters
