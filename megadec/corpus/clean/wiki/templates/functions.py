"""Parser functions: `{{#if: }}`, `{{#switch: }}`, `{{#expr: }}`, `{{lc: }}` ... as far as a page alone decides them."""

import re
from datetime import datetime

from megadec.corpus.clean.wiki.protect import ERROR, GAP
from megadec.corpus.clean.wiki.templates.amounts import grouped
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, argument
from megadec.corpus.clean.wiki.templates.dates import shown_date
from megadec.corpus.clean.wiki.templates.expressions import evaluate
from megadec.corpus.clean.wiki.templates.languages import LANGUAGES

_DATE = re.compile(
    r"([0-9]{4})(?:[-/年]?([0-9]{2})[-/月]?([0-9]{2})日?(?:[ T]([0-9]{1,2}):([0-9]{2})(?::[0-9]{2})?Z?)?"
    r"|[-/年]([0-9]{1,2})(?:[-/月]([0-9]{1,2})日?|月)?)$"
)
_SHOWN = re.compile("[0-9]+")
_WEEKDAYS = "一二三四五六日"


def _piece(arguments: Arguments, index: int) -> str:
    pieces = arguments.pieces()
    return pieces[index] if index < len(pieces) else ""


def _if(arguments: Arguments) -> str:
    return _piece(arguments, 0 if arguments.head else 1)


def _if_equal(arguments: Arguments) -> str:
    return _piece(arguments, 1 if _equal(arguments.head, _piece(arguments, 0)) else 2)


def _equal(one: str, other: str) -> bool:
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _if_expression(arguments: Arguments) -> str:
    if GAP in arguments.head:
        return GAP
    value = evaluate(arguments.head)
    return _piece(arguments, 0 if value not in (None, "0") else 1)


def _if_error(arguments: Arguments) -> str:
    is_error = ERROR in arguments.head or 'class="error"' in arguments.head
    pieces = arguments.pieces()
    return (pieces[0] if pieces else "") if is_error else pieces[1] if len(pieces) > 1 else arguments.head


def _switch(arguments: Arguments) -> str:
    """The first case that equals the head, through cases without a value; else #default= or a last piece alone."""
    if GAP in arguments.head:
        return GAP
    pieces = arguments.pieces()
    default = ""
    fits = falls_to_default = False
    for index, piece in enumerate(pieces):
        case, equals, value = piece.partition("=")
        if not equals and index == len(pieces) - 1:
            return piece
        case = case.strip()
        fits = fits or _equal(arguments.head, case)
        falls_to_default = falls_to_default or case == "#default"
        if equals and fits:
            return value.strip()
        if equals and falls_to_default:
            default, falls_to_default = value.strip(), False
    return default


def _expression(arguments: Arguments) -> str:
    if GAP in arguments.head or not arguments.head:
        return arguments.head and GAP
    value = evaluate(arguments.head)
    return ERROR if value is None else value


def _time(arguments: Arguments) -> str:
    """{{#time:Y年n月j日|2008-03-01}}: a date that is given; without one it would be today, and a gap is left."""
    time = _moment(_piece(arguments, 0))
    if time is None:
        return GAP
    shown = {
        "Y": f"{time.year}", "y": f"{time.year % 100:02}", "n": f"{time.month}", "m": f"{time.month:02}",
        "j": f"{time.day}", "d": f"{time.day:02}", "F": f"{time.month}月", "M": f"{time.month}月",
        "D": _WEEKDAYS[time.weekday()], "l": f"星期{_WEEKDAYS[time.weekday()]}", "N": f"{time.isoweekday()}",
        "w": f"{time.isoweekday() % 7}", "z": f"{time.timetuple().tm_yday - 1}", "t": "", "L": "",
        "H": f"{time.hour:02}", "G": f"{time.hour}", "i": f"{time.minute:02}", "s": f"{time.second:02}",
    }  # fmt: skip
    return re.sub(
        r'"([^"]*)"|\\(.)|x[a-zA-Z]|([A-Za-z])',
        lambda m: m[1] or m[2] or (shown.get(m[3], m[3]) if m[3] else ""),
        arguments.head,
    )


def _moment(text: str) -> datetime | None:
    """A date, a month, or a date with hours and minutes, as editors give them to #time."""
    match = _DATE.match(text)
    parts = (
        [int(part) for part in match.groups() if part]
        if match
        else [int(n) for n in _SHOWN.findall(shown_date([text]))]
    )
    try:
        return datetime(*[*parts, 1][: max(3, len(parts))]) if len(parts) > 1 else None  # type: ignore[arg-type]
    except ValueError:
        return None


def _pad(*, left: bool) -> Recipe:
    def padded(arguments: Arguments) -> str:
        head, width, fill = arguments.head, _piece(arguments, 0), _piece(arguments, 1) or "0"
        if not width.isdecimal() or int(width) > 100:
            return head
        padding = (fill * int(width))[: max(0, int(width) - len(head))]
        return padding + head if left else head + padding

    return padded


def _tag(arguments: Arguments) -> str | None:
    """{{#tag:NAME|content}}: what the tags would show that the cleaning of tags keeps."""
    name, content = arguments.head.lower(), _piece(arguments, 0)
    if name in ("math", "chem", "ce"):
        return f"${content}$" if content else ""
    keeps = "span div poem nowiki pre syntaxhighlight source small big ruby blockquote sub sup b i u s em strong"
    return content if name in keeps.split() else None


def _number(arguments: Arguments) -> str:
    raw = _piece(arguments, 0).lower() in ("r", "nosep")
    return arguments.head.replace(",", "") if raw else grouped(arguments.head)


def _title_parts(arguments: Arguments) -> str:
    count, first = (_piece(arguments, index) for index in (0, 1))
    parts = arguments.head.split("/")
    parts = parts[int(first) - 1 if first.isdecimal() and int(first) else 0 :]
    return "/".join(parts[: int(count)] if re.fullmatch("-?[1-9][0-9]?", count) else parts)


def _language(arguments: Arguments) -> str:
    return arguments.words(LANGUAGES.get(arguments.head.lower(), arguments.head))


def _nothing(arguments: Arguments) -> str:
    return ""


def _unknown(arguments: Arguments) -> None:
    return None


FUNCTIONS: dict[str, Recipe] = {
    "#if": _if,
    "#ifeq": _if_equal,
    "#ifexpr": _if_expression,
    "#iferror": _if_error,
    "#ifexist": lambda arguments: _piece(arguments, 0),
    "#switch": _switch,
    "#expr": _expression,
    "#time": _time,
    "#timel": _time,
    "#tag": _tag,
    "#titleparts": _title_parts,
    "#language": _language,
    "#dateformat": lambda arguments: arguments.head,
    "formatdate": lambda arguments: arguments.head,
    "#formatdate": lambda arguments: arguments.head,
    "#invoke": _unknown,
    "lc": lambda arguments: arguments.head.lower(),
    "uc": lambda arguments: arguments.head.upper(),
    "lcfirst": lambda arguments: arguments.head[:1].lower() + arguments.head[1:],
    "ucfirst": lambda arguments: arguments.head[:1].upper() + arguments.head[1:],
    "formatnum": _number,
    "padleft": _pad(left=True),
    "padright": _pad(left=False),
    "gender": lambda arguments: _piece(arguments, 0),
    "plural": argument(1),  # Chinese has one form
    "urlencode": lambda arguments: arguments.head,
    "anchorencode": lambda arguments: arguments.head,
    "defaultsort": _nothing,
    "displaytitle": _nothing,
    "defaultsortkey": _nothing,
    "ns": _nothing,
    "namespace": _nothing,
}
