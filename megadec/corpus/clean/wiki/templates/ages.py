"""Templates of ages and of time between two dates. Where one of them is today, a gap is left."""

import re
from datetime import date

from megadec.corpus.clean.wiki.protect import GAP
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, names
from megadec.corpus.clean.wiki.templates.dates import date_of

_ISO_DAY = re.compile(r"([0-9]{3,4})[-/]([0-9]{1,2})[-/]([0-9]{1,2})$")


def _days(arguments: Arguments) -> list[date]:
    """The whole dates that are given: by position as three numbers or in ISO 8601, or by name."""
    values = [arguments.text(position) for position in range(1, 7)]
    if any(_ISO_DAY.match(value) for value in values[:2]):
        parts = [match.groups() for value in values[:2] if (match := _ISO_DAY.match(value))]
    elif arguments.text("year", "year1"):
        first = tuple(arguments.text(name, f"{name}1") for name in ("year", "month", "day"))
        parts = [first, tuple(arguments.text(f"{name}2") for name in ("year", "month", "day"))]
    else:
        parts = [tuple(values[:3]), tuple(values[3:])]
    found: list[date] = []
    for year, month, day in parts:
        try:
            found.append(date(int(year), int(month), int(day)))
        except ValueError:
            continue
    return found


def _span(arguments: Arguments) -> tuple[date, date] | None:
    days = _days(arguments)
    return (min(days), max(days)) if len(days) == 2 else None


def _whole_months(first: date, last: date) -> int:
    return 12 * (last.year - first.year) + last.month - first.month - (last.day < first.day)


def _rest_of_days(first: date, last: date, months: int) -> int:
    """The days that are left when so many months are taken from the time between the two."""
    month = first.month - 1 + months
    year, month = first.year + month // 12, month % 12 + 1
    try:
        begin = date(year, month, first.day)
    except ValueError:  # the month is too short
        begin = date(year + month // 12, month % 12 + 1, 1)
    return (last - begin).days


def _age(*units: str) -> Recipe:
    """The time between two dates in years, months, days; a single unit is shown as a number alone."""

    def shown(arguments: Arguments) -> str:
        span = _span(arguments)
        if span is None:
            return GAP
        months = _whole_months(*span)
        if units == ("天",):
            return str((span[1] - span[0]).days)
        if units == ("月",):
            return str(months)
        years, months_left = divmod(months, 12)
        if units == ("年",):
            return str(years)
        days = _rest_of_days(*span, months if "个月" in units else 12 * years)
        amounts = {"年": years, "个月": months_left, "天": days}
        return arguments.words("".join(f"{amounts[unit]}{unit}" for unit in units if amounts[unit]))

    return shown


_IN_ALL_UNITS = _age("年", "个月", "天")


def _death(arguments: Arguments) -> str:
    """A date of death with the age, where both dates are whole."""
    died, span = date_of(arguments), _span(arguments)
    if not died or span is None:
        return died or arguments.text(1)
    return f"{died}（{_whole_months(*span) // 12}{arguments.words('岁')}）"


def _born(arguments: Arguments) -> str:
    """{{birth based on age as of date|50|2000|1|1}}: one of two years."""
    age, year = arguments.text(1), arguments.text(2)
    if not (age.isdecimal() and re.fullmatch("[0-9]{4}", year)):
        return ""
    born = int(year) - int(age)
    return f"{born - 1}年或{born}年"


def _gap(arguments: Arguments) -> str:
    return GAP


TABLE: Table = (
    (names("""
        death date and age, death-date and age, dda, 逝世日期和年龄, 逝世日期和年齡, 逝世日期及年龄
        逝世日期及年齡, 死亡日期和年龄, 死亡日期和年齡, 死亡日期及年龄, 死亡日期及年齡, 去世日期和年齡
        去世日期和年龄
    """), _death),
    (names("age, 年龄, 年齡, age in years, age nts, 周岁, 周歲, 岁数, 歲數"), _age("年")),
    (names("age in days, aid, ayid, 天数, 天數, 日数, 日數, number of days, age in days nts"), _age("天")),
    (names("age in months"), _age("月")),
    (names("age in years and days, ayd, age in years and days nts, 年数和天数, 年數和天數"), _age("年", "天")),
    (names("age in years and months, aym, age in years & months"), _age("年", "个月")),
    (names("""
        age in years months and days, aymd, time interval, 时间间隔, 時間間隔
    """), _IN_ALL_UNITS),
    (["age in years, months and days", "age in years, months, weeks and days"], _IN_ALL_UNITS),
    (names("birth based on age as of date, birth based on age at death, bbaad"), _born),
    # What only today knows.
    (names("""
        time ago, years ago, years or months ago, time since, 距今, days ago, months ago, years since, countdown
        倒计时, 倒數, 倒数, age as of date, start date and years ago short, days since, timesince, 已过时间
        currentyear, currentmonth, currentmonthname, currentday, currentday2, currentdow, currentdayname
        currentmonthabbrev, currentmonth1, currenttime, currenthour, currentweek, currenttimestamp, localyear
        localmonth, localmonthname, localday, localday2, localdayname, localtime, localtimestamp, today, now
        numberofarticles, numberofpages, numberofusers, numberofedits, numberofactiveusers, numberoffiles
        numberofadmins, current date, currentdate, 今日, 今天, 今年, 现在时间
    """), _gap),
    (names("""
        to usd, to usd2, tousd, inflation, 通胀, 通膨, to eur, to cny, usd to, currency convert, usdconvert
        fxconvert, inrconvert, cnyconvert, to usd round, to gbp, to jpy, to twd, to hkd, inflated, us inflation
        format price inflation, 物价换算, 通貨膨脹, 通货膨胀, 汇率换算, 匯率換算, audconvert, cadconvert
        jpyconvert, gbpconvert
    """), _gap),
)  # fmt: skip
