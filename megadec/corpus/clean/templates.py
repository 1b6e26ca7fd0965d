"""Templates -> the words they show: a table from a template's name to what of it is text.

In: a template node of mwparserfromhell. Out: its text, or nothing for boxes, notes and navigation. Templates of no row
in the table are judged by their place: alone on a line they are boxes and go, inside a sentence their text argument
stays. Trade-off: what Lua would compute is only roughly rendered ({{convert}} keeps the number and the unit given).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from mwparserfromhell.nodes import Template
from mwparserfromhell.wikicode import Wikicode

from megadec.corpus.clean.protect import LINE_BREAK
from megadec.corpus.clean.variant import TRADITIONAL, to_variant

_HAN = re.compile(r"[\u3400-\u9fff]")
_INLINE_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Page:
    """What a template or a link needs to know of the page it stands on."""

    title: str
    variant: str


class Arguments:
    """A template's arguments by name or position (counted from 1), rendered to text when they are asked for."""

    def __init__(self, template: Template, render: Callable[[Wikicode], str], page: Page) -> None:
        self._values = {str(parameter.name).strip().lower(): parameter.value for parameter in template.params}
        self._render = render
        self.page = page

    def text(self, *names: int | str) -> str:
        """The first of these arguments that is not empty, as text."""
        for name in names:
            value = self._values.get(str(name))
            if value is not None and (text := self._render(value).strip()):
                return text
        return ""

    def positional(self) -> list[str]:
        """All non-empty positional arguments in order."""
        return [text for name in self._values if name.isdigit() and (text := self.text(name))]


Recipe = Callable[[Arguments], str]


def expand(template: Template, render: Callable[[Wikicode], str], page: Page, *, in_sentence: bool) -> str:
    """The text a template shows, or an empty string. `render` turns an argument into text."""
    name = template_name(str(template.name))
    arguments = Arguments(template, render, page)
    recipe = _recipe(name)
    if recipe is not None:
        return recipe(arguments)
    if not in_sentence or _DROPPED.match(name):
        return ""
    return _text_argument(arguments)


def template_name(raw: str) -> str:
    """`Template: Lang-en ` -> `lang-en`: lower case, blanks for underscores, no namespace."""
    name = re.sub(r"[\s_]+", " ", raw).strip().lower()
    return re.sub(r"^(?:template|模板|样板|樣板|t):\s*", "", name)


def _recipe(name: str) -> Recipe | None:
    recipe = _RECIPES.get(name)
    if recipe is not None:
        return recipe
    prefix, hyphen, rest = name.partition("-")
    if hyphen and prefix in ("lang", "langx") and rest:
        return lambda arguments: _labelled(rest, arguments.text(1), arguments.page)
    if hyphen and prefix in ("link", "le", "ilh", "translink"):
        return _RECIPES["link-en"]
    function, colon, rest = name.partition(":")
    if colon and function in ("formatnum", "lc", "uc", "lcfirst", "ucfirst"):
        return lambda arguments: rest
    return None


def _text_argument(arguments: Arguments) -> str:
    """Of a template we do not know, inside a sentence: the argument with Han characters, else the last; short ones only."""
    values = arguments.positional()
    if not values:
        return ""
    chosen = next((value for value in values if _HAN.search(value)), values[-1])
    return chosen if len(chosen) <= _INLINE_CHARACTERS and "\n" not in chosen and "=" not in chosen else ""


def _labelled(code: str, text: str, page: Page) -> str:
    """`英语：tea`, as {{lang-en|tea}} shows it; the text alone for a language that the table lacks."""
    label = _LANGUAGES.get(code.split("-")[0], "") if text else ""
    if page.variant == TRADITIONAL:
        label = to_variant(label, "zh-Hans", "zh-Hant")
    return f"{label}：{text}" if label else text


def _argument(*names: int | str) -> Recipe:
    return lambda arguments: arguments.text(*names)


def _constant(text: str) -> Recipe:
    return lambda arguments: text


def _joined(separator: str) -> Recipe:
    return lambda arguments: separator.join(arguments.positional())


def _quote(arguments: Arguments) -> str:
    source = arguments.text(2, "source", "author", "sign")
    text = arguments.text(1, "text", "quote", "content")
    return f"{LINE_BREAK}{text}{'——' + source if source and text else ''}{LINE_BREAK}"


def _ruby(arguments: Arguments) -> str:
    base, reading = arguments.text(1), arguments.text(2)
    return f"{base}（{reading}）" if base and reading else base


def _nihongo(arguments: Arguments) -> str:
    shown, rest = arguments.text(1), [text for text in (arguments.text(2), arguments.text(3)) if text]
    return f"{shown}（{'，'.join(rest)}）" if shown and rest else shown or "，".join(rest)


def _measure(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) >= 4 and values[1] in ("-", "–", "to", "and", "x", "×", "至"):
        return f"{values[0]}{'–' if values[1] in ('to', '-') else values[1]}{values[2]}{_unit(values[3])}"
    return f"{values[0]}{_unit(values[1])}" if len(values) >= 2 else "".join(values)


def _unit(unit: str) -> str:
    return _UNITS.get(unit, f" {unit}")


def _fraction(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) == 3:
        return f"{values[0]}又{values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _value(arguments: Arguments) -> str:
    power = arguments.text("e")
    unit = arguments.text("u", "ul", "up", "upl")
    number = arguments.text(1) + (f"×10^{power}" if power else "")
    return f"{number} {unit}" if unit and number else number


def _date(arguments: Arguments) -> str:
    parts = [part for part in arguments.positional() if part.isdigit()][:3]
    if not parts:
        return arguments.text(1)
    return "".join(part.lstrip("0") + name for part, name in zip(parts, "年月日", strict=False))


def _life(arguments: Arguments) -> str:
    values = [arguments.text(position) for position in (1, 2, 3, 4)]
    return f"{values[0]}{values[1]}－{values[2]}{values[3]}" if any(values) else ""


def _japanese(arguments: Arguments) -> str:
    parts = [
        ("日语", arguments.text("j", "kj", "s", "1")),
        ("平假名", arguments.text("hg")),
        ("罗马字", arguments.text("rm")),
    ]
    shown = "；".join(f"{label}：{text}" for label, text in parts if text)
    return to_variant(shown, "zh-Hans", "zh-Hant") if arguments.page.variant == TRADITIONAL else shown


def _language_argument(arguments: Arguments) -> str:
    return _labelled(arguments.text(1), arguments.text(2), arguments.page)


def _title(arguments: Arguments) -> str:
    return arguments.page.title


_LANGUAGES = {
    "en": "英语", "fr": "法语", "de": "德语", "ja": "日语", "jp": "日语", "ko": "韩语", "ru": "俄语", "es": "西班牙语", "it": "意大利语",
    "pt": "葡萄牙语", "la": "拉丁语", "el": "希腊语", "grc": "古希腊语", "ar": "阿拉伯语", "he": "希伯来语", "nl": "荷兰语",
    "sv": "瑞典语", "no": "挪威语", "nb": "书面挪威语", "nn": "新挪威语", "da": "丹麦语", "fi": "芬兰语", "is": "冰岛语", "pl": "波兰语",
    "cs": "捷克语", "sk": "斯洛伐克语", "hu": "匈牙利语", "ro": "罗马尼亚语", "bg": "保加利亚语", "sr": "塞尔维亚语", "hr": "克罗地亚语",
    "uk": "乌克兰语", "be": "白俄罗斯语", "lt": "立陶宛语", "lv": "拉脱维亚语", "et": "爱沙尼亚语", "tr": "土耳其语", "fa": "波斯语",
    "hi": "印地语", "sa": "梵语", "bn": "孟加拉语", "ta": "泰米尔语", "th": "泰语", "vi": "越南语", "id": "印尼语", "ms": "马来语",
    "mn": "蒙古语", "bo": "藏语", "ug": "维吾尔语", "ga": "爱尔兰语", "cy": "威尔士语", "eo": "世界语", "ca": "加泰罗尼亚语", "eu": "巴斯克语",
    "fil": "菲律宾语", "tl": "他加禄语", "km": "高棉语", "my": "缅甸语", "lo": "老挝语", "ka": "格鲁吉亚语", "hy": "亚美尼亚语", "kk": "哈萨克语",
    "uz": "乌兹别克语", "mnc": "满语", "yue": "粤语", "nan": "闽南语", "ur": "乌尔都语", "sw": "斯瓦希里语", "sl": "斯洛文尼亚语",
}  # fmt: skip
_UNITS = {
    "m": "米", "km": "公里", "cm": "厘米", "mm": "毫米", "mi": "英里", "ft": "英尺", "in": "英寸", "yd": "码", "nmi": "海里",
    "kg": "公斤", "g": "克", "t": "吨", "lb": "磅", "oz": "盎司", "km2": "平方公里", "sqkm": "平方公里", "m2": "平方米",
    "sqmi": "平方英里", "sqft": "平方英尺", "ha": "公顷", "acre": "英亩", "acres": "英亩", "l": "升", "L": "升", "km/h": "公里/小时",
    "mph": "英里/小时", "kn": "节", "C": "°C", "F": "°F", "K": "K", "°C": "°C", "°F": "°F",
}  # fmt: skip

# (names, what is text of them). Names in lower case, Simplified and Traditional.
_TABLE: tuple[tuple[str, Recipe], ...] = (
    ("lang zh-lang color 字体颜色 font color fontcolor colored text background color bg bgcolor resize transl "
     "audio 音频 sort tooltip2 rubyja notatypo", _argument(2, "text", 1)),
    ("langx", _language_argument),
    ("link-en le liw link interlanguage ill illm ilh internal-link-helper red-link lw lwh lww",
     _argument("zh_text", "d", "nt", 3, "zh", 1)),
    ("link-interwiki link-wd 跨语言链接", _argument("zh_text", "zh", 1)),
    ("le ill", _argument("d", "zh", 1)),
    ("tsl translink tslh tsll", _argument(4, 3, 2)),
    ("nowrap nobr nobreak nobold noitalic small smaller big larger large center align-center u underline s strike del sub "
     "sup bold b i em strong abbr tooltip hover title kbd code mono monospace tt var mvar math unicode ipa ipa2 cjk jan "
     "zhm zh-hans zh-hant 僻字 專名號 专名号 專名 专名 書名號 书名号 波浪線 uw 地名 red green blue orange gray grey "
     "purple brown black white pink yellow flag flagcountry 国旗 flagu fb 國旗 lj lk jp vertical 直排 poem 诗 hl mark highlight "
     "linkjp nts ntsh num number gapnum dts formatnum ruby-zh zhongwen wikt wiktionary 维基词典 spaced ordinal transliteration "
     "chem2 ce pua 楷体 楷體 宋体 标楷体 dialect tq tqq", _argument(1, "text")),
    ("linktext gaps chem key keypress 化学式 zh-linktext", _joined("")),
    ("quote cquote quotation blockquote quote box rquote 引用 引言 引文 古文 bquote quote2 quotex", _quote),
    ("ruby ruby-py ruby-ja rubi 注音 拼音 ruby2", _ruby),
    ("nihongo nihongo2 nihongo3", _nihongo),
    ("jpn", _japanese),
    ("kor korean", _argument("k", "hangul", 1)),
    ("convert cvt conv 换算 換算", _measure),
    ("frac fraction sfrac tfrac 分数 分數", _fraction),
    ("val", _value),
    ("start date end date birth date death date birth date and age death date and age film date 日期 date dob "
     "start date and age 生年 bda", _date),
    ("bd", _life),
    ("pagename fullpagename basepagename subpagename pagenamee", _title),
    ("e", lambda arguments: f"×10^{arguments.text(1)}"),
    ("10^", lambda arguments: f"10^{arguments.text(1)}"),
    ("circa", lambda arguments: f"约{arguments.text(1)}"),
    ('" “ 引號 引号', lambda arguments: f"“{arguments.text(1)}”"),
    ("! !-", _constant("|")),
    ("= equals", _constant("=")),
    ("· • dot bullet middot", _constant("·")),
    ("-- —— dash mdash 破折號 破折号", _constant("——")),
    ("ndash snd spaced ndash en dash", _constant("–")),
    ("nbsp space spaces -sp", _constant(" ")),
    ("' apostrophe", _constant("'")),
    ("br break clear- brk", _constant(LINE_BREAK)),
)  # fmt: skip
# Names of more than one word cannot be split by blanks.
_LONG_NAMES = (
    "font color", "colored text", "background color", "hover title", "quote box", "birth date", "death date",
    "start date", "end date", "film date", "birth date and age", "death date and age", "start date and age",
    "spaced ndash", "en dash",
)  # fmt: skip

# Inside a sentence these still show no words of the page.
_DROPPED = re.compile(
    r"#|cite|citation|harv|sfn|efn|ref|note|rp$|r$|fn$|ndash$|fact|cn$|citation|来源|來源|需要|需|fact|clarif|who$|when$|which$|why$|"
    r"where$|by whom|according|谁$|誰$|何时|何時|哪|dead|失效|死链|死鏈|webarchive|wayback|archive|需要引文|原创研究|原創研究|original|"
    r"dubious|vague|pov|peacock|weasel|update|expand|stub|小作品|小條目|coord|坐标|座標|flagicon|旗|icon|file|image|navbox|infobox|"
    r"信息框|資訊框|sidebar|portal|commons|wikisource|wikiquote|authority|defaultsort|displaytitle|anchor|visible|clear|toc|main|"
    r"see|about|other|distinguish|redirect|hatnote|for$|not$|更多|主条目|主條目|参见|參見|消歧|disambig|doi|isbn|issn|oclc|pmid|"
    r"pmc|jstor|arxiv|bibcode|asin|imdb|official|url$|website|twitter|facebook|youtube|lang icon|.{2,3} icon|en$|ja$|zh$|"
    r"ipac|pronunciation|listen|audio|multiple|unreferenced|refimprove|copyedit|cleanup|noteta|地区用词|db-|delete|vfd|"
    r"increase|decrease|steady|growth|rating|stars?$|yes$|no$|won$|nom$|n/a|tba|unknown|good article|featured|link ga|link fa",
)


def _build() -> dict[str, Recipe]:
    recipes: dict[str, Recipe] = {}
    for names, recipe in _TABLE:
        for long_name in _LONG_NAMES:
            if re.search(rf"(?:^|\s){long_name}(?:\s|$)", names):
                recipes.setdefault(long_name, recipe)
        for name in names.split():
            recipes.setdefault(name, recipe)
    return recipes


_RECIPES = _build()
