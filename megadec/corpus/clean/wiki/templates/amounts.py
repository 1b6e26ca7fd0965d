"""Templates of numbers, units and money. An amount in another currency at today's rate is never shown."""

import re

from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, argument, joined, names, pairs

# What stands between the two ends of a range, and how it is shown.
_RANGES = {
    "-": "–", "–": "–", "—": "–", "to": "–", "to(-)": "–", "and(-)": "–", "and": "和", "or": "或", "x": "×", "by": "×",
    "×": "×", "*": "×", "xx": "×", "x(x)": "×", "by(x)": "×", "至": "至", "到": "到", "~": "~", "±": "±", "+/-": "±",
    "和": "和", "或": "或", "、": "、", ",": "、", "+": "+",
}  # fmt: skip
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
    values = arguments.positional()
    shown = ""
    while len(values) >= 2 and (number := _amount(values[0])):
        shown += number
        if (sign := _RANGES.get(values[1])) and len(values) > 2:  # 3 to 5 km
            shown += arguments.words(sign)
        elif _amount(values[1]):
            return ""
        else:
            shown += unit_word(values[1], arguments)
            if values[1] not in ("ft", "foot", "lb", "st", "yd", "mi", "oz", "chain"):  # 5 ft 10 in
                return shown
        values = values[2:]
    return shown or (_amount(values[0]) if len(values) == 1 else "")


def _amount(given: str) -> str:
    """A number as it is shown: `2+1/2` -> `2又1/2`; empty for what is none."""
    if match := _MIXED_NUMBER.fullmatch(given):
        return f"{match[1]}又{match[2]}/{match[3]}" if match[1] else given
    ends = re.split("(?<=[0-9])[-–—~](?=[0-9])", given)
    if not all(end and _NUMBER.match(end) for end in ends):
        return ""
    return "–".join(grouped(end) if len(end.partition(".")[0]) > 4 else end for end in ends)


def unit_word(unit: str, arguments: Arguments) -> str:
    """`km2` -> `平方公里`, `e6m3` -> `百万立方米`, `g/cm3` -> `克/立方厘米`; another unit stays, behind a blank."""
    plain = unit.strip()
    if match := re.fullmatch("e([369])(.+)", plain):
        count, plain = {"3": "千", "6": "百万", "9": "十亿"}[match[1]], match[2]
    else:
        count = ""
    word = UNITS.get(plain) or UNITS.get(plain.lower()) or _UNITS_IN_WORDS.get(plain.lower().removesuffix("s"))
    if word is None and "/" in plain:
        over, _, under = (UNITS.get(part, "") for part in plain.partition("/"))
        word = f"{over}/{under}" if over and under else None
    if word is None and re.match("[\u3400-\u9fff]", plain):
        word = plain
    return f"{count} {plain}" if word is None else arguments.words(count + word)


def _measure_in(unit: str) -> Recipe:
    """{{km to mi|5}}"""

    def shown(arguments: Arguments) -> str:
        amount = _amount(arguments.text(1))
        return amount and amount + unit_word(unit, arguments)

    return shown


def _fraction(arguments: Arguments) -> str:
    values = arguments.positional()
    if len(values) == 3:
        return f"{values[0]}又{values[1]}/{values[2]}"
    return "/".join(values) if len(values) == 2 else f"1/{values[0]}" if values else ""


def _value(arguments: Arguments) -> str:
    power, unit = arguments.text("e"), arguments.text("u", "ul", "up", "upl")
    number, plus, minus = (arguments.text(position) for position in (1, 2, 3))
    number = grouped(number)
    if plus in _RANGES and minus:
        number += f"{_RANGES[plus]}{minus}"
    elif plus and minus:
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
        amount = grouped(amount) + _large(arguments)
        after = "" if amount.endswith((after, "元", "圓", "圆")) else after
        return f"{arguments.words(before)}{amount}{arguments.words(after)}"

    return shown


def _symbol(symbol: str) -> Recipe:
    return lambda arguments: symbol + grouped(arguments.text(1)) + _large(arguments)


def _large(arguments: Arguments) -> str:
    """{{USD|5|亿}}, {{US$|5|million}}: the word that counts the amount."""
    word = arguments.text(2)
    if word in ("万", "萬", "亿", "億", "百万", "百萬", "千万", "千萬", "万亿", "兆"):
        return word
    return f" {word}" if word.lower() in ("thousand", "million", "billion", "trillion") else ""


def _currency(arguments: Arguments) -> str:
    """{{currency|100|USD}}."""
    amount, code = arguments.text(1, "amount"), arguments.text(2, "type").lower()
    recipe = MONEY.get(code)
    return (recipe(arguments) or "") if recipe else f"{code.upper()} {grouped(amount)}".strip() if amount else ""


# Units in English words, without the s of a plural.
_UNITS_IN_WORDS = pairs("""
    metre 米, meter 米, kilometre 公里, kilometer 公里, centimetre 厘米, centimeter 厘米, millimetre 毫米
    millimeter 毫米
    mile 英里, yard 码, feet 英尺, inche 英寸, nautical mile 海里, kilogram 公斤, gram 克, pound 磅, ounce 盎司
    square kilometre 平方公里, square kilometer 平方公里, square mile 平方英里, square metre 平方米
    square meter 平方米
    square feet 平方英尺, hectare 公顷, litre 升, liter 升, gallon 加仑, mi/h 英里/小时, km/hour 公里/小时, hour 小时
    celsiu °C, fahrenheit °F, kelvin K, light-year 光年, parsec 秒差距, watt 瓦, ton 吨
""")
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
    GHz 吉赫, US gal 美制加仑, imp gal 英制加仑, sq ft 平方英尺, sq mi 平方英里, sq km 平方公里, sq m 平方米
    sq yd 平方码
    sqyd 平方码, cu in 立方英寸, cuin 立方英寸, cu ft 立方英尺, cuyd 立方码, cu yd 立方码, in3 立方英寸, mm2 平方毫米
    kt 节, hr 小时, LY 光年, kly 千光年, Mly 百万光年, Gly 十亿光年, kpc 千秒差距, Mpc 百万秒差距, lbft 磅英尺
    lb·ft 磅英尺, ft.lbf 英尺磅, N.m 牛米, N·m 牛米, kgf 公斤力, PD/km2 人/平方公里, PD/sqmi 人/平方英里
    /sqmi /平方英里, Pa 帕, mmHg 毫米汞柱, Wh 瓦时, kWh 千瓦时, MWh 兆瓦时, GWh 吉瓦时, TWh 太瓦时, MJ 兆焦
    long ton 长吨
    short ton 短吨, metric ton 公吨, kt(weight) 千吨, ct 克拉, dm 分米, dl 分升, cl 厘升, hl 百升, kl 千升, Å 埃
    μg 微克
    ug 微克, ms 毫秒, ksi 千磅/平方英寸, mpgus 英里/美制加仑, mpg 英里/加仑, L/100 km 升/100公里, rpm 转/分钟
    s 秒, min 分钟, h 小时, d 天
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
    "₽", "฿", "₫", "₱", "₴", "₺", "₪", "₦", "₸", "₮", "$", "£", "€", "¥", "￥", "₩", "₹",
)  # fmt: skip
_SYMBOL_NAMES = {"euro": "€", "pound": "£", "gbp£": "£", "yen": "¥", "usdollar": "US$", "円": "¥"}

TABLE: Table = (
    (names("""
        convert, cvt, conv, 换算, 換算, 轉換, 转换, 单位换算, 單位換算, unit convert, convinfobox, conv-dist
    """), _measure),
    *(([f"{one} to {other}"], _measure_in(one)) for one, other in (
        ("km", "mi"), ("mi", "km"), ("m", "ft"), ("ft", "m"), ("cm", "in"), ("in", "cm"), ("in", "mm"), ("kg", "lb"),
        ("lb", "kg"), ("km2", "mi2"), ("mi2", "km2"), ("ha", "acre"), ("mph", "km/h"), ("nmi", "km"),
    )),
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
    *(([symbol], _symbol(symbol.upper())) for symbol in _SYMBOLS),
    *(([name], _symbol(symbol)) for name, symbol in _SYMBOL_NAMES.items()),
    *(([code], recipe) for code, recipe in MONEY.items()),
    (names("ordinal, 序数, 序數"), argument(1)),
)  # fmt: skip
