"""Drops the sections of a page that hold no text of its own: lists of sources, notes and links.

A section falls by what it holds. A heading such as 参考文献 only says where to look: prose under it stays, and a list
of links to other sites goes under any heading.
"""

import re
from collections.abc import Sequence

from megadec.corpus.clean.context import Taken
from megadec.corpus.clean.wiki.protect import LINE_BREAK, OUTSIDE_LABEL
from megadec.corpus.clean.wiki.render import Section

_BETWEEN_TITLES = re.compile(r"[及与與和、/／&＆,，\s]+")
_IN_BRACKETS = re.compile(r"[（(][^（）()]*[)）]")

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
BOILERPLATE = frozenset({*_BOILERPLATE_TITLES.split(), "see also", "external links", "further reading"})

_LIST_MARKS = " \t*#:;"
_HAN = re.compile("[\u3400-\u9fff\U00020000-\U0003ffff]")
_SENTENCE_END = re.compile("[。！？!?…]")
# Words that sentences are built with, and titles, names and years of a list of books are not.
_FUNCTION_WORDS = re.compile("[的了在是于於為为和與与以之而其由被有这這也就都从從把将將并並但因所乃即自指出稱称]")
_BOOK = re.compile(
    r"ISBN|ISSN|出版社|doi|存[档檔]|存取|检索|檢索|查[阅閱]|原始[内內]容|retrieved|\b(?:pp?|vol)\.|[0-9]{4}-[0-9]{2}",
    re.I,
)
_POINTER = re.compile("(?:参见|參見|参看|參看|另[见見]|[详詳]?[见見]|主条目|主條目)")
# A paragraph may be one short sentence; an item of a list is prose when it is long.
_PROSE_HAN, _PROSE_ITEM_HAN, _BOOK_HAN = 8, 40, 80


def drop_boilerplate(sections: Sequence[Section], taken: Taken) -> list[Section]:
    """The sections, those without text of their own with their heading alone; what goes is counted as `sections`."""
    kept: list[Section] = []
    boilerplate_level = 99
    for section in sections:
        if section.level <= boilerplate_level:
            boilerplate_level = section.level if is_boilerplate(section.title) else 99
        under_boilerplate = section.level >= boilerplate_level
        falls = (
            not _has_prose(section.body) if under_boilerplate else bool(section.title) and _lists_links(section.body)
        )
        kept.append(section._replace(body="") if falls else section)
        if falls and section.body.strip():
            taken.add("sections", len(section.body))
    return kept


def is_boilerplate(title: str) -> bool:
    """Whether a heading announces sources, notes or links; `注释与参考文献` is judged by its parts."""
    words = _IN_BRACKETS.sub("", title).strip(" \t'[]:：").lower()
    parts = [part for part in _BETWEEN_TITLES.split(words) if part]
    return words in BOILERPLATE or (bool(parts) and BOILERPLATE.issuperset(parts))


def _lines(body: str) -> list[str]:
    return [line for line in body.replace(LINE_BREAK, "\n").split("\n") if line.strip(_LIST_MARKS)]


def _has_prose(body: str) -> bool:
    """Whether a line of sentences stands in it; an item of a list has to be longer and must not open with a link."""
    for line in _lines(body):
        content = line.lstrip(_LIST_MARKS)
        least = _PROSE_HAN if content == line.lstrip() else _PROSE_ITEM_HAN
        if not content.startswith(OUTSIDE_LABEL) and _is_prose(content, least):
            return True
    return False


def _is_prose(line: str, least_han: int) -> bool:
    han = len(_HAN.findall(line))
    if han < least_han or " | " in line or not _SENTENCE_END.search(line):
        return False
    if han < _BOOK_HAN and (_BOOK.search(line) or _POINTER.match(line)):
        return False
    return _FUNCTION_WORDS.search(line) is not None


def _lists_links(body: str) -> bool:
    """Whether every line opens with a link to another site and says little more."""
    if OUTSIDE_LABEL not in body:
        return False
    lines = _lines(body)
    return bool(lines) and all(
        line.lstrip(_LIST_MARKS).startswith(OUTSIDE_LABEL) and not _is_prose(line, _PROSE_ITEM_HAN) for line in lines
    )
