"""Templates of numbers, units and money. An amount in another currency at today's rate is never shown."""

import re

from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, argument, joined, names, pairs

_RANGES = ("-", "–", "—", "to", "and", "x", "×", "至", "by", "or", "to(-)", "and(-)", "~", "±", "+/-")
_NUMBER = re.compile(r"[-+−]?(?:[0-9][0-9,]*)?(?:\.[0-9]+)?$")
_MIXED_NUMBER = re.compile(r"([-−]?[0-9]+)\+([0-9]+)[/⁄]([0-9]+)$|[-−]?[0-9]+[/⁄][0-9]+$")
RAISED = str.maketrans("0123456789+-−()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁽⁾ⁿ")


def grouped(number: str) -> str:
    """`1234567.5` -> `1,234,567.5`; anything that is no plain number stays."""
    if not re.fullmatch(r"[-−+]?[0-9]{4,}(?:\.[0-9]+)?", number):
        return number
    whole, point, rest = number.partition(".")
    sign = whole[0] if whole[0] in "-−+" else ""
    return f"{sign}{int(whole.lstrip('-−+')):,}{point}{rest}"


def _measure(arguments: Arguments) -> str:
    """{{convert|5|km|mi}}: the amount that is given, with its unit; what it comes to in another one goes."""
    values = [
        _MIXED_NUMBER.sub(lambda m: f"{m[1]}又{m[2]}/{m[3]}" if m[1] else m[0], v) for v in arguments.positional()
    ]
    if not values or not (_NUMBER.match(values[0]) or "/" in values[0]):
        return ""
    if len(values) >= 4 and values[1] in _RANGES:
        sign = {"x": "×", "by": "×", "×": "×", "至": "至", "~": "~", "±": "±", "+/-": "±"}.get(values[1], "–")
        return f"{values[0]}{sign}{values[2]}{_unit(values[3], arguments)}"
    shown = f"{values[0]}{_unit(values[1], arguments)}" if len(values) > 1 else values[0]
    if len(values) >= 4 and values[1] in ("ft", "lb", "st", "yd", "mi") and _NUMBER.match(values[2]):
        shown += f"{values[2]}{_unit(values[3], arguments)}"  # 5 ft 10 in
    return shown


def _unit(unit: str, arguments: Arguments) -> str:
    """`km2` -> `平方公里`; `e6km2` counts millions of them."""
    power = re.match(r"e(3|6|9)(?=\D)", unit)
    if power and unit[2:] in UNITS:
        return arguments.words({"3": "千", "6": "百万", "9": "十亿"}[power[1]] + UNITS[unit[2:]])
    return arguments.words(UNITS[unit]) if unit in UNITS else f" {unit}"


def _fraction(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) == 3:
        return f"{values[0]}又{values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _value(arguments: Arguments) -> str:
    power, unit = arguments.text("e"), arguments.text("u", "ul", "up", "upl")
    number, plus, minus = (arguments.text(position) for position in (1, 2, 3))
    if plus and minus:
        number += f"+{plus}−{minus}"
    elif plus:
        number += plus if plus.startswith("(") else f"±{plus}"
    number = f"{arguments.text('p')}{number}{f'×10^{power}' if power else ''}{arguments.text('s')}"
    return f"{number} {unit}" if unit and number else number


def _number(arguments: Arguments) -> str:
    return arguments.text("prefix") + grouped(arguments.text(1)) + arguments.text("suffix")


def _raised(arguments: Arguments) -> str:
    """A power must not run into the number before it."""
    text = arguments.text(1)
    return text.translate(RAISED) if re.fullmatch(r"[-+−0-9n()]{1,8}", text) else text


def _percentage(arguments: Arguments) -> str:
    part, whole, digits = (arguments.text(position).replace(",", "") for position in (1, 2, 3))
    if not (_NUMBER.match(part) and part):
        return part
    if not whole:
        return f"{part}%"
    if not _NUMBER.match(whole) or float(whole) == 0:
        return ""
    return f"{100 * float(part) / float(whole):.{int(digits) if digits.isdecimal() and len(digits) == 1 else 0}f}%"


def _height(arguments: Arguments) -> str:
    parts = {"m": "米", "cm": "厘米", "ft": "英尺", "in": "英寸", "kg": "公斤", "lb": "磅", "st": "英石"}
    return arguments.words("".join(value + unit for name, unit in parts.items() if (value := arguments.text(name))))


def money(word: str) -> Recipe:
    """{{USD|100}}: `100美元`; a word that ends in an open amount (人民币_元) takes the number inside."""

    def shown(arguments: Arguments) -> str:
        before, _, after = word.rpartition("_")
        if not (amount := arguments.text(1)):
            return arguments.words(before or after)
        amount = grouped(amount)
        after = "" if amount.endswith((after, "元", "圓", "圆")) else after
        return f"{arguments.words(before)}{amount}{arguments.words(after)}"

    return shown


def _symbol(symbol: str) -> Recipe:
    return lambda arguments: symbol + grouped(arguments.text(1))


def _currency(arguments: Arguments) -> str:
    """{{currency|100|USD}}."""
    amount, code = arguments.text(1, "amount"), arguments.text(2, "type").lower()
    recipe = MONEY.get(code)
    return (recipe(arguments) or "") if recipe else f"{code.upper()} {grouped(amount)}".strip() if amount else ""


UNITS = pairs("""
    m 米, km 公里, cm 厘米, mm 毫米, um 微米, μm 微米, nm 纳米, mi 英里, ft 英尺, foot 英尺, in 英寸, inch 英寸
    yd 码, nmi 海里, kg 公斤, g 克, mg 毫克, t 吨, tonne 吨, tonnes 吨, MT 公吨, LT 长吨, ST 短吨, lb 磅, lbs 磅
    oz 盎司, st 英石, km2 平方公里, sqkm 平方公里, km² 平方公里, m2 平方米, m² 平方米, sqm 平方米, cm2 平方厘米
    sqmi 平方英里, mi2 平方英里, sqft 平方英尺, ft2 平方英尺, ha 公顷, acre 英亩, acres 英亩, m3 立方米
    m³ 立方米, cuft 立方英尺, ft3 立方英尺, km3 立方公里, cc 立方厘米, cm3 立方厘米, l 升, L 升, ml 毫升
    mL 毫升, gal 加仑, USgal 美制加仑, impgal 英制加仑, km/h 公里/小时, kph 公里/小时, mph 英里/小时, m/s 米/秒
    kn 节, knot 节, C °C, F °F, °C °C, °F °F, K K, hp 马力, PS 马力, bhp 马力, shp 轴马力, ihp 指示马力, kW 千瓦
    MW 兆瓦, GW 吉瓦, W 瓦, N 牛顿, kN 千牛, lbf 磅力, lb.ft 磅英尺, Nm 牛米, psi 磅/平方英寸, kPa 千帕
    MPa 兆帕, hPa 百帕, bar 巴, atm 标准大气压, J 焦耳, kJ 千焦, cal 卡路里, kcal 千卡, ly 光年, pc 秒差距
    AU 天文单位, au 天文单位, PD/sqkm 人/平方公里, /km2 /平方公里, /sqkm /平方公里, oilbbl 桶, bbl 桶
    carat 克拉, hand 掌宽, fathom 英寻, rod 杆, furlong 浪, V 伏特, A 安培, Hz 赫兹, kHz 千赫, MHz 兆赫
    GHz 吉赫, s 秒, min 分钟, h 小时, d 天
""")

MONEY: dict[str, Recipe] = {
    code: money(word)
    for code, word in pairs("""
        cny 人民币_元, rmb 人民币_元, 人民币 人民币_元, 人民幣 人民币_元, hkd 港币_元, 港元 港币_元
        港币 港币_元, 港幣 港币_元, twd 新台币_元, ntd 新台币_元, 新台币 新台币_元, 新臺幣 新台币_元
        新台幣 新台币_元, mop 澳门币_元, usd 美元, 美元 美元, eur 欧元, 欧元 欧元, 歐元 欧元, gbp 英镑
        英镑 英镑, 英鎊 英镑, jpy 日圆, 日元 日圆, 日圓 日圆, krw 韩元, 韩元 韩元, 韓元 韩元, 韩圆 韩元
        韓圓 韩元, kpw 朝鲜元, aud 澳元, 澳元 澳元, nzd 新西兰元, cad 加元, 加元 加元, sgd 新加坡元
        新加坡元 新加坡元, chf 瑞士法郎, rub 卢布, 卢布 卢布, 盧布 卢布, inr 印度卢比, idr 印尼盾, thb 泰铢
        泰铢 泰铢, 泰銖 泰铢, myr 马来西亚林吉特, php 菲律宾比索, vnd 越南盾, brl 巴西雷亚尔, mxn 墨西哥比索
        try 土耳其里拉, sek 瑞典克朗, nok 挪威克朗, dkk 丹麦克朗, pln 波兰兹罗提, czk 捷克克朗, huf 匈牙利福林
        ils 以色列新谢克尔, zar 南非兰特, sar 沙特里亚尔, aed 阿联酋迪拉姆, egp 埃及镑, uah 乌克兰格里夫纳
        kzt 哈萨克斯坦坚戈, mnt 蒙古图格里克, pkr 巴基斯坦卢比, bdt 孟加拉塔卡, lkr 斯里兰卡卢比, irr 伊朗里亚尔
        ars 阿根廷比索, clp 智利比索, dem 德国马克, frf 法国法郎, itl 意大利里拉, btc 比特币
    """).items()
}
_SYMBOLS = (
    "us$", "nt$", "hk$", "a$", "au$", "nz$", "c$", "ca$", "s$", "sg$", "r$", "mop$", "rm", "cn¥", "rmb¥", "jp¥", "ntd$",
    "$", "£", "€", "¥", "￥", "₩", "₹",
)  # fmt: skip
_SYMBOL_NAMES = {"euro": "€", "pound": "£", "gbp£": "£", "yen": "¥", "usdollar": "US$", "円": "¥"}

TABLE: Table = (
    (names("""
        convert, cvt, conv, 换算, 換算, 轉換, 转换, 单位换算, 單位換算, unit convert, convinfobox, conv-dist
    """), _measure),
    (names("frac, fraction, sfrac, tfrac, 分数, 分數, 分式, half"), _fraction),
    (names("val, 值"), _value),
    (names("formatnum, nts, number, num, ntsf, 数字, 數字, formatprice, numfmt, comma"), _number),
    (names("sup, smallsup, ^"), _raised),
    (names("gaps, gapnum, digits"), joined("")),
    (["e", "×10^", "x10^"], lambda arguments: f"×10^{arguments.text(1)}"),
    (["10^", "esp"], lambda arguments: f"10^{arguments.text(1)}"),
    (names("percentage, percent, pct, 百分比, %"), _percentage),
    (names("height, weight, 身高, 体重, 體重"), _height),
    (names("rating, stars, rating-5, 评分, 評分"), lambda a: f"{a.text(1)}/{a.text(2) or 5}" if a.text(1) else ""),
    (names("currency, 货币, 貨幣"), _currency),
    (names("""
        to usd, to usd2, tousd, inflation, 通胀, 通膨, to eur, to cny, usd to, currency convert
    """), lambda arguments: None),
    *(([symbol], _symbol(symbol.upper())) for symbol in _SYMBOLS),
    *(([name], _symbol(symbol)) for name, symbol in _SYMBOL_NAMES.items()),
    *(([code], recipe) for code, recipe in MONEY.items()),
    (names("ordinal, 序数, 序數"), argument(1)),
)  # fmt: skip
