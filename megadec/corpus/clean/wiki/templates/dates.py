"""Templates of dates and years."""

import re

from megadec.corpus.clean.wiki.protect import LINE_BREAK
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Table, argument, names

_ISO = re.compile(r"([0-9]{3,4})[-/.]([0-9]{1,2})(?:[-/.]([0-9]{1,2}))?$")
_YEAR = re.compile(r"(?:公元|西元)?([0-9]{1,4})年?$")
_IN_ENGLISH = re.compile(r"(?:([0-9]{1,2}) )?([A-Za-z]{3,9})\.? (?:([0-9]{1,2}),? )?([0-9]{4})$")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Any template whose name says that it is a date, and whose first argument is a year.
IS_DATE = re.compile(r"\bdates?\b|日期|生年月日|出生|逝世|去世|忌日")


def shown_date(parts: list[str]) -> str:
    """`2008年3月1日` of a year, a month and a day, as far as they are given and make sense; empty where they do not.

    One part alone may be a date in ISO 8601 or in English words.
    """
    if parts and (iso := _ISO.match(parts[0])):
        parts = [part for part in iso.groups() if part]
    elif parts and (words := _IN_ENGLISH.match(parts[0])) and _month(words[2]):
        parts = [words[4], words[2], words[1] or words[3] or ""]
    elif len(parts) == 3 and not parts[0] and _month(parts[1]) and parts[2].isdecimal():
        return f"{_month(parts[1])}月{int(parts[2])}日"
    year = _YEAR.match(parts[0]) if parts else None
    if not year or not 0 < int(year[1]) < 3000:
        return ""
    shown = f"{int(year[1])}年"
    month = _month(parts[1]) if len(parts) > 1 else 0
    if not month:
        return shown
    day = re.match(r"([0-9]{1,2})[日号號]?$", parts[2]) if len(parts) > 2 else None
    return f"{shown}{month}月" + (f"{int(day[1])}日" if day and 0 < int(day[1]) < 32 else "")


def _month(text: str) -> int:
    match = re.match(r"([0-9]{1,2})月?$", text)
    number = int(match[1]) if match else next((n for n, m in enumerate(_MONTHS, 1) if text.lower().startswith(m)), 0)
    return number if 0 < number < 13 else 0


def date_of(arguments: Arguments, first: int = 1) -> str:
    """The date in three positional arguments from `first` on, or in year=, month=, day=."""
    named = [arguments.text(name) for name in ("year", "month", "day")]
    return shown_date(named if named[0] else [arguments.text(first + i) for i in range(3)])


def _date(arguments: Arguments) -> str:
    """A date; one that is written out already stays as it is."""
    given = arguments.text(1)
    return date_of(arguments) or _after_format(arguments) or ("" if given.isdecimal() else given)


def _after_format(arguments: Arguments) -> str:
    """{{dts|format|2008|3|1}}: the date begins with the second argument."""
    given = arguments.text(1)
    return date_of(arguments, 2) if given and not given.isdecimal() else ""


def _between(arguments: Arguments) -> str:
    """{{date range|2000|2001}}"""
    dates = [shown_date([value]) or value for value in arguments.positional()]
    return "－".join(dates)


def _as_of(arguments: Arguments) -> str:
    if alternative := arguments.text("alt"):
        return alternative
    shown = date_of(arguments) or arguments.text(1)
    if arguments.text("bare") or not shown:
        return shown
    return arguments.words(f"自{shown}起" if arguments.text("since") else f"截至{shown}")


def _film_dates(arguments: Arguments) -> str:
    """{{film date|2010|1|2|上海|2010|2|3}}: dates with places."""
    values = arguments.positional()
    found: list[str] = []
    while values:
        date_parts = [values.pop(0)]
        while values and len(date_parts) < 3 and values[0].isdecimal() and len(values[0]) <= 2:
            date_parts.append(values.pop(0))
        shown = shown_date(date_parts) or date_parts[0]
        if values and not _YEAR.match(values[0]):
            shown += f"（{values.pop(0)}）"
        found.append(shown)
    return LINE_BREAK.join(found)


def _releases(arguments: Arguments) -> str:
    """{{vgrelease|JP|date|NA|date}}: regions and dates in turn; or named by their region."""
    values = arguments.positional()
    lines = [
        f"{arguments.words(_REGIONS.get(place.lower(), place))}：{day}"
        for place, day in zip(values[::2], values[1::2], strict=False)
    ]
    lines += [f"{arguments.words(name)}：{day}" for code, name in _REGIONS.items() if (day := arguments.text(code))]
    return LINE_BREAK.join(lines)


def _life(arguments: Arguments) -> str:
    """{{bd|1900年|1月1日|1980年|2月2日}}; of the living the birth alone."""
    if arguments.text(1).isdecimal() and re.fullmatch("[0-9]{3,4}", arguments.text(2)):  # two years
        return f"{arguments.text(1)}年－{arguments.text(2)}年"
    parts = [arguments.text(position) for position in (1, 2, 3, 4)]
    years = [shown_date([part]) or part if _ISO.match(part) or part.isdecimal() else part for part in parts[::2]]
    born, died = years[0] + parts[1], years[1] + parts[3]
    return f"{born}－{died}" if re.search(r"[\w?？]", died) else born


def _reign(arguments: Arguments) -> str:
    years = [f"{value}年" if value.isdecimal() else value for value in (arguments.text(1), arguments.text(2))]
    return f"{years[0]}－{years[1]}在位" if any(years) else ""


def _circa(arguments: Arguments) -> str:
    values = [value for value in (arguments.text(1), arguments.text(2)) if value]
    return arguments.words("约") + "－".join(values) if values else ""


_REGIONS = {
    "jp": "日本", "na": "北美", "eu": "欧洲", "us": "美国", "au": "澳洲", "kr": "韩国", "cn": "中国大陆", "tw": "台湾",
    "hk": "香港", "uk": "英国", "as": "亚洲", "ww": "全球", "int": "国际", "pal": "PAL",
}  # fmt: skip

TABLE: Table = (
    (names("""
        start date, end date, birth date, birth-date, birth date2, birth date and age, birthdate and age
        birthdate, b-da, 成立于, 成立於, birth date and age2, bda, dob, birth-date and age, birth year and age
        bya, birth year, death year, death date, death-date, date, death year and age, release date, dts
        start date and age, start date and years ago, 日期, 生日, 生年, 生年月日, 出生日期, 出生日期和年龄
        出生日期和年齡, 出生日期及年龄, 出生日期及年齡, 生年月日和年齡, 生年月日和年龄, 出生年和年龄
        出生年和年齡, 出生年份和年龄, 出生年份和年齡, 逝世日期, 开始日期, 開始日期, 結束日期, 结束日期
        开始日期和年龄, 開始日期和年齡, 成立日期, 成立日期和年龄, 成立日期和年齡, 发布日期, 發布日期, 發行日期
        发行日期, 播出日期, 首播日期, isodate, date-mf, datetime
    """), _date),
    (names("date range, daterange, date-range, 日期范围, 日期範圍, 年份范围, 年份範圍"), _between),
    (names("as of, asof, 截至, 截止, 截止到, 截至到, as at"), _as_of),
    (names("film date, filmdate, 电影日期, 電影日期, 上映日期"), _film_dates),
    (names("vgrelease, video game release, vgrelease new, vgrtbl, 游戏发行日期, 遊戲發行日期"), _releases),
    (names("bd, bd2, 生卒, 生卒年"), _life),
    (names("reign, r., 在位"), _reign),
    (names("circa, c., ca., 約, 约"), _circa),
    (names("floruit, fl."), argument(1)),
    (names("""
        by, fy, ey, fly, mlby, mlb year, baseball year, avyear, sy, film year, tv year, year, 年份
    """), argument(1)),
)  # fmt: skip
