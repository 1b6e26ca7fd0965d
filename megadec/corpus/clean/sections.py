"""Cuts a page into sections and drops those without prose of their own (references, links).

Sections are cut by lines before anything is parsed, so an error of markup stays in its section; a template or table
that reaches over a heading is joined again by counting braces.
"""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_HEADING = re.compile(r"^(={1,6})[ \t]*(\S.*?)[ \t]*\1[ \t]*$", re.MULTILINE)
_TABLE_START = re.compile(r"^[ \t:*#]*\{\|", re.MULTILINE)
_TABLE_END = re.compile(r"^[ \t]*\|\}(?!\})", re.MULTILINE)
_BETWEEN_TITLES = re.compile(r"[及与與和、/／&＆,，\s]+")
_JOIN_AT_MOST = 30

# Simplified and Traditional, as they are spelled in zh.wikipedia.
_BOILERPLATE_TITLES = """
    参考 参考文献 参考资料 参考来源 参考书目 参考网站 参考链接 参考资料来源 文献 文献来源 资料来源 来源 引用
    引文 引用来源 出处 參考 參考文獻 參考資料 參考來源 參考書目 參考網站 參考連結 參考資料來源 文獻 文獻來源
    資料來源 來源 出處 引用文獻 注释 注解 脚注 注脚 备注 附注 尾注 註釋 註解 注釋 腳註 註腳 腳注 備註 附註
    尾註 註 注 参考注释 參考註釋 外部链接 外部连结 相关链接 相关连结 外部鏈接 外部連結 相關連結 相關鏈接 連結
    链接 外部资源 外部資源 官方网站 官方網站 参见 参看 参阅 另见 另参见 相关条目 相关项目 关联项目 關聯項目
    參見 參看 參閱 另見 另參見 相關條目 相關項目 内部链接 內部連結 延伸阅读 扩展阅读 进阶阅读 深入阅读
    拓展阅读 延伸閱讀 擴展閱讀 進階閱讀 深入閱讀 相关文献 相關文獻 书目 書目 画廊 畫廊 图集 圖集 图片 圖片
    图库 圖庫 相册 相簿 图片集 圖片集 references notes
"""
# This announces references or prose alike: 来源 of an article on salt is where salt comes from.
AMBIGUOUS = frozenset(("来源", "來源"))
_NO_PROSE_START = tuple("*#:;|!{}<[=")
_PROSE_HAN = 40
_HAN = re.compile("[\u4e00-\u9fff]")
BOILERPLATE = frozenset({*_BOILERPLATE_TITLES.split(), "see also", "external links", "further reading"})


@dataclass(frozen=True, slots=True)
class Section:
    """A heading (level 0 and no title: the lead) and the wikitext under it up to the next heading."""

    level: int
    title: str
    body: str


def split_sections(wikitext: str) -> list[Section]:
    """All sections in order; a heading inside a template or table that was opened before it does not cut."""
    headings = list(_HEADING.finditer(wikitext))
    starts = [0, *(heading.end() for heading in headings)]
    ends = [*(heading.start() for heading in headings), len(wikitext)]
    bodies = [wikitext[start:end] for start, end in zip(starts, ends, strict=True)]
    sections: list[Section] = []
    index = 0
    while index < len(bodies):
        level, title = (len(headings[index - 1][1]), headings[index - 1][2]) if index else (0, "")
        last = _closing_section(bodies, index)
        sections.append(Section(level, title, wikitext[starts[index] : ends[last]]))
        index = last + 1
    return sections


def without_boilerplate(sections: Sequence[Section]) -> list[Section]:
    """Sections without references, notes, links and the like, nor what stands below them."""
    kept: list[Section] = []
    dropped_level = 99
    for index, section in enumerate(sections):
        if section.level > dropped_level:
            continue
        dropped = is_boilerplate(section.title) and not (
            _words(section.title) in AMBIGUOUS and any(_has_prose(part.body) for part in _with_below(sections, index))
        )
        dropped_level = section.level if dropped else 99
        if not dropped:
            kept.append(section)
    return kept


def _with_below(sections: Sequence[Section], index: int) -> Iterator[Section]:
    """The section and those that stand below it."""
    yield sections[index]
    yield from itertools.takewhile(lambda section: section.level > sections[index].level, sections[index + 1 :])


def _has_prose(body: str) -> bool:
    """Whether a line that is no list item, table, template or link holds a sentence's worth of Han characters."""
    lines = (line.lstrip() for line in body.splitlines())
    return any(len(_HAN.findall(line)) >= _PROSE_HAN for line in lines if not line.startswith(_NO_PROSE_START))


def is_boilerplate(title: str) -> bool:
    """Whether a heading announces no prose; `注释与参考文献` is judged by its parts."""
    words = _words(title)
    parts = [part for part in _BETWEEN_TITLES.split(words) if part]
    return words in BOILERPLATE or (bool(parts) and BOILERPLATE.issuperset(parts))


def _words(title: str) -> str:
    """A heading without markup, brackets and their content."""
    return re.sub(r"<[^<>]*>|\{\{[^{}]*\}\}|['\[\]:：]|\s*[（(].*?[)）]", "", title).strip().lower()


def _closing_section(bodies: list[str], index: int) -> int:
    """The section in which what `index` leaves open is closed; `index` itself where all is closed or never closed."""
    templates = tables = 0
    for end in range(index, min(index + _JOIN_AT_MOST, len(bodies))):
        templates += bodies[end].count("{{") - bodies[end].count("}}")
        tables += len(_TABLE_START.findall(bodies[end])) - len(_TABLE_END.findall(bodies[end]))
        if templates <= 0 and tables <= 0:
            return end
    return index
