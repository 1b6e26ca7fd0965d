"""Private data in text: found by form, checked by checksum or surroundings, replaced by fixed masks, counted by kind.

A match never begins or ends inside a longer number, word or web address. Where a form alone says little (a version that
looks like an IP address, an amount that looks like a mobile number) the characters around it decide. Text is expected
in one width, as `clean_text` leaves it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import date

from megadec.common.errors import check_some
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document

# What stands in the text instead. No cleaner takes these brackets for markup, every tokenizer has the characters, and
# a mask holds nothing that would be masked again. The order is that of precedence.
MASKS = {
    "email": "【邮箱】",
    "id_number": "【身份证号】",
    "bank_card": "【银行卡号】",
    "mobile": "【手机号】",
    "landline": "【电话号码】",
    "ip_address": "【IP地址】",
    "licence_plate": "【车牌号】",
    "passport": "【护照号】",
}
CONTEXT_CHARACTERS = 16
LONGEST_ADDRESS = 200  # how far back a web address is looked for

Found = tuple[int, int]


@dataclass(frozen=True)
class PrivacyOptions:
    """Private data.

    Attributes:
        mask: none, all, or some of email, id_number, bank_card, mobile, landline, ip_address, licence_plate, passport.
    """

    mask: tuple[str, ...] = ()


def masked_kinds(options: PrivacyOptions) -> tuple[str, ...]:
    """The kinds that `options` ask to mask, in the order of MASKS. Raises ConfigError for an unknown one."""
    check_some("privacy.mask", options.mask, MASKS)
    return tuple(kind for kind in MASKS if kind in options.mask or "all" in options.mask)


def mask_document(kinds: Sequence[str], document: Document, context: CleanContext) -> Document:
    """The document with these kinds masked in title and text; each mask is counted in `context` as `private KIND`."""
    masked = {}
    for name in ("title", "text"):
        text = getattr(document, name)
        pieces, done = [], 0
        for start, end, kind in private_spans(text, kinds):
            pieces += [text[done:start], MASKS[kind]]
            done = end
            context.taken.add(f"private {kind}", end - start - len(MASKS[kind]))
        if pieces:
            masked[name] = "".join((*pieces, text[done:]))
    return replace(document, **masked) if masked else document


def private_spans(text: str, kinds: Sequence[str]) -> list[tuple[int, int, str]]:
    """(start, end, kind) of the private data in `text`, in its order; the first kind wins where two overlap."""
    windows = _windows(text)
    found = [(*span, kind) for kind in kinds for span in _FINDERS[kind](text, windows)]
    covered = bytearray(len(text) if found else 0)
    spans = []
    for start, end, kind in found:
        if not any(covered[start:end]):
            covered[start:end] = b"\1" * (end - start)
            spans.append((start, end, kind))
    return sorted(spans)


# A run of digits with what people write between them; nothing shorter than 10 digits is private.
_RUN = re.compile(r"[0-9][0-9 ()（）‐-—-]{8,}[0-9]")
_DIGITS = str.maketrans("", "", " -()（）‐‑‒–—+")
# Words that a number may touch: `tel13800138000`.
_CONTACT = (
    "tel", "phone", "mobile", "mob", "call", "cell", "wx", "wechat", "vx", "v", "weixin", "fax", "t", "m", "id", "card",
    "no", "sms", "whatsapp", "qq",
)  # fmt: skip
_NUMBERED = re.compile("ISBN|ISSN|DOI|书号|订单|单号|编号|条码|条形码|批号|流水号|序列号|編號|訂單", re.I)
_UNIT = re.compile(r"\s?(?:[元美港日欧人股万亿次个吨米份票户辆件]|公里|千|平方|[%％‰]|km|kg)")
# An amount, decimals, or a part of a code with hyphens.
_NO_START = re.compile(r"(?:[$¥￥€£]|[0-9A-Za-z][.-])$")
_NO_END = re.compile(r"[.-][0-9]")
_WORD_BEFORE = re.compile(r"[A-Za-z_]+=?$")
_WORD_AFTER = re.compile(r"[A-Za-z_]+")
_ADDRESS_BEFORE = re.compile(r"[!-~]+$")


def _windows(text: str) -> list[Found]:
    """Where long numbers stand, with what may stand before and after their digits."""
    found = []
    for run in _RUN.finditer(text):
        if len(run[0].translate(_DIGITS)) >= 10:
            start = run.start()
            while start > 0 and text[start - 1] in "+(（":
                start -= 1
            found.append((start, min(run.end() + 1, len(text))))  # 1: the X of an ID number
    return found


def _in_windows(pattern: re.Pattern[str], text: str, windows: Sequence[Found]) -> Iterator[re.Match[str]]:
    for start, end in windows:
        for match in pattern.finditer(text, start, end):
            if _stands_alone(text, match.start(), match.end()):
                yield match


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a number is no part of a longer one, of a word or of a web address."""
    before, after = text[max(start - CONTEXT_CHARACTERS, 0) : start], text[end : end + CONTEXT_CHARACTERS]
    if before[-1:].isdigit() or after[:1].isdigit():
        return False
    if _NO_START.search(before) or _NO_END.match(after):
        return False
    words = _WORD_BEFORE.search(before), _WORD_AFTER.match(after)
    if any(word and word[0].rstrip("=").lower() not in _CONTACT for word in words):
        return False
    return not _in_address(text, start)


def _in_address(text: str, start: int) -> bool:
    """Whether the characters before, up to a blank or a Chinese one, are the beginning of a web address."""
    run = _ADDRESS_BEFORE.search(text[max(start - LONGEST_ADDRESS, 0) : start])
    return run is not None and ("://" in run[0] or "www." in run[0])


def _before(text: str, start: int) -> str:
    return text[max(start - CONTEXT_CHARACTERS, 0) : start]


# The first two digits of the six that name where an ID number was issued (GB/T 2260, and permits since 2018).
_REGIONS = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]|91")
_ID_18 = re.compile(r"([1-9]\d)(\d{4})( ?)((?:18|19|20)\d{2})(\d{2})(\d{2})\3(\d{3}[0-9Xx])", re.ASCII)
_ID_15 = re.compile(r"([1-9]\d)\d{4}(\d{2})(\d{2})(\d{2})\d{3}", re.ASCII)
_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


def _id_numbers(text: str, windows: Sequence[Found]) -> Iterator[Found]:
    """18 digits by GB 11643 (region, birthday, check digit), and the 15 of before 1999 (region, birthday)."""
    for match in _in_windows(_ID_18, text, windows):
        digits = match[0].replace(" ", "").upper()
        check = sum(weight * int(digit) for weight, digit in zip(_ID_WEIGHTS, digits[:17], strict=True)) % 11
        if _REGIONS.match(match[1]) and _is_day(*map(int, match.group(4, 5, 6))) and digits[17] == "10X98765432"[check]:
            yield match.span()
    for match in _in_windows(_ID_15, text, windows):
        year, month, day = map(int, match.group(2, 3, 4))
        if (
            _REGIONS.match(match[1])
            and _is_day(1900 + year, month, day)
            and not _NUMBERED.search(_before(text, match.start()))
        ):
            yield match.span()


def _is_day(year: int, month: int, day: int) -> bool:
    with suppress(ValueError):
        return bool(date(year, month, day))
    return False


# Cards by their first digits and lengths: UnionPay, Visa, Mastercard, JCB, Discover, American Express, and cards of
# ICBC, ABC, CCB and BOC from before UnionPay's numbers.
_ISSUERS = re.compile(
    r"62\d{14,17}|(?:4\d{3}|5[1-5]\d{2}|222[1-9]|22[3-9]\d|2[3-6]\d{2}|27[01]\d|2720|352[89]|35[3-8]\d|6011|65\d{2})\d{12}"
    r"|3[47]\d{13}|(?:955[89]\d{2}|436742|43406[12]|456351|601382|601428)\d{10,13}"
)
_CARD = re.compile(
    r"\d{4}([ -]?)\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{6}[ -]\d{10,13}|3[47]\d{2}[ -]\d{6}[ -]\d{5}", re.ASCII
)


def _bank_cards(text: str, windows: Sequence[Found]) -> Iterator[Found]:
    for match in _in_windows(_CARD, text, windows):
        if match[1] and _in_series(text, *match.span(), match[1]):
            continue
        digits = match[0].translate(_DIGITS)
        known = _ISSUERS.fullmatch(digits) and len(set(digits)) > 1
        if known and _luhn(digits) and not _NUMBERED.search(_before(text, match.start())):
            yield match.span()


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


_PREFIX = r"(?:[(（]?(?:\+|00)?86[)）]?[- ]?)?"
_MOBILE = re.compile(
    rf"{_PREFIX}1(?:3\d|4[014-9]|5[0-35-9]|6[2567]|7[0-8]|8\d|9[0-35-9])"
    r"(?:\d{8}|([- ])\d{4}\1\d{4}|\d([- ])\d{3}\2\d{4})"
    r"|(?:\+|00)852[- ]?[5-79]\d{3}[- ]?\d{4}|(?:\+|00)853[- ]?6\d{3}[- ]?\d{4}"
    r"|(?:(?:\+|00)886[- ]?9\d{2}|09\d{2}-)[- ]?\d{3}[- ]?\d{3}",
    re.ASCII,
)
_PHONE_WORD = re.compile(
    "电话|電話|手机|手機|联系|聯系|聯絡|传真|傳真|热线|熱線|拨打|撥打|tel|fax|phone|mobile|call", re.I
)


def _mobiles(text: str, windows: Sequence[Found]) -> Iterator[Found]:
    """Mainland numbers, with or without 86; those of Hong Kong and Macau with their country code; Taiwan's."""
    for match in _in_windows(_MOBILE, text, windows):
        start, end = match.span()
        before, separator = _before(text, start), match[1] or match[2]
        if _PHONE_WORD.search(before):
            yield start, end
        elif separator and _in_series(text, start, end, separator):
            continue
        elif not (_NUMBERED.search(before) or _UNIT.match(text, end) or match[0].endswith("000000")):
            yield start, end


def _in_series(text: str, start: int, end: int, separator: str) -> bool:
    """Whether more groups of digits stand around: a row of a table."""
    around = text[max(start - 2, 0) : start], text[end : end + 2]
    return any(part.strip(separator).isdigit() and part != part.strip(separator) for part in around)


_AREA_3 = r"10|2[0-57-9]"
_AREA_4 = (
    r"3(?:1\d|35|49|5\d|7\d|9\d)|4(?:1\d|2[179]|3\d|5\d|6[4789]|7\d|8[23])|5[1-9]\d|6(?:3[1-5]|6[0238]|9[12])"
    r"|7(?:01|[1-9]\d)|8(?:1[2-9]|[235789]\d)|9(?:0\d|1\d|3\d|4[13]|5\d|7\d|9\d)"
)
_LANDLINE = re.compile(
    rf"(?:{_PREFIX}[(（]?0(?:{_AREA_3}|{_AREA_4})|(?:\+|00)86[- ](?:{_AREA_3}|{_AREA_4}))"
    r"(?P<joint>[)）]?[- ‐-—]{0,3})[2-9](?:\d{7}|\d{6}|\d{3}[- ]\d{4}|\d{2}[- ]\d{4})(?:(?:转|轉|-)\d{1,5})?",
    re.ASCII,
)
_LOCAL = re.compile(
    r"(?:[电電][话話]|[座固][机機话話]|[传傳]真)(?:[号號][码碼]?)?[:：为是 ]{0,3}"
    r"([2-8]\d{2,3}[- ]?\d{4})(?![\d.]|[- ]\d)",
    re.ASCII,
)
_DAY = re.compile(r"[- ]20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])$", re.ASCII)


def _landlines(text: str, windows: Sequence[Found]) -> Iterator[Found]:
    """Numbers with an area code; where nothing parts it from the rest, a word such as 电话 has to stand before, and
    right before a number without one."""
    extended = [(start, min(end + 8, len(text))) for start, end in windows]  # an extension: 转8001
    for match in _in_windows(_LANDLINE, text, extended):
        before = _before(text, match.start())
        certain = match["joint"] and not _NUMBERED.search(before) and not _DAY.search(match[0])
        if certain or _PHONE_WORD.search(before):
            yield match.span()
    for match in _LOCAL.finditer(text):
        if not _UNIT.match(text, match.end()):
            yield match.span(1)


_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,5}([A-Za-z]{2,24})(?![A-Za-z0-9-]|:[A-Za-z~/])"
)
# icon@2x.png
_FILE_TYPES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "py", "txt", "json", "html", "pdf", "md")


def _emails(text: str, _: Sequence[Found]) -> Iterator[Found]:
    if "@" in text:
        for match in _EMAIL.finditer(text):
            if match[1].lower() not in _FILE_TYPES and not _in_address(text, match.start()):
                yield match.span()


_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9]|\.[0-9]|/[0-9])")
_IPV6 = re.compile(r"[0-9A-Fa-f:]{2,39}(?![0-9A-Za-z:.])")
_IP_WORD = re.compile(
    r"\bIP|ip[:：]|IP地址|网址|地址|位址|服务器|伺服器|主机|主機|ping|host|addr|DNS|网关|網關|代理|proxy|://|@", re.I
)
# Right before the numbers these decide, whatever stands further back.
_VERSION = re.compile(r"(?:(?<![A-Za-z])v(?:er(?:sion)?)?\.?|版本?|固件)[号號码碼]?[为為是到至从從=:： ]{0,3}$", re.I)
_VERSION_WORD = re.compile(r"(?:\b[vV]|[A-Za-z][ /_-]|版|版本|version|第|章|节|節|条)[ :：]*$", re.I)


def _ip_addresses(text: str, _: Sequence[Found]) -> Iterator[Found]:
    """IPv4 and IPv6 addresses but for those that name no machine (loopback, 0.0.0.0, netmasks, multicast)."""
    for match in _IPV4.finditer(text):
        start, end = match.span()
        if (text[start - 1 : start].isalnum() and text[start - 1 : start].isascii()) or text[
            start - 2 : start
        ].endswith("."):
            continue
        if _names_machine(match[0]) and _looks_like_address(match[0], _before(text, start)):
            yield start, end
    if ":" not in text:
        return
    for match in _IPV6.finditer(text):
        start, end = match.span()
        groups = [group for group in match[0].split(":") if group]
        told = len(groups) > 2 or (len(groups) == 2 and len(groups[0]) == 4 and any(map(str.isdigit, groups[0])))
        inside = re.match(r"[\w.:]", text[start - 1 : start], re.ASCII)
        if told and not inside and match[0].count(":") > 1 and _names_machine(match[0]):
            yield start, end


def _names_machine(address: str) -> bool:
    with suppress(ValueError):
        found = ipaddress.ip_address(address)
        no_one = found.is_loopback or found.is_unspecified or found.is_multicast
        return not (no_one or address.startswith(("0.", "255.")))
    return False


def _looks_like_address(address: str, before: str) -> bool:
    """Whether four numbers with points are an address rather than a version or the number of a section."""
    if _VERSION.search(before):
        return False
    if _IP_WORD.search(before):
        return True
    numbers = [int(number) for number in address.split(".")]
    return not _VERSION_WORD.search(before) and (max(numbers) >= 100 or sum(number >= 20 for number in numbers) > 1)


# GA 36: a province and an office, then five of which at most two are letters; six for new-energy cars.
_PLATE = re.compile(
    r"([京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼滬雲遼魯蘇贛晉陝閩貴粵寧瓊])"
    r"[A-HJ-NP-Z][ ·•‧・]?"
    r"((?:[A-HJ-NP-Z0-9]{4}[A-HJ-NP-Z0-9挂学警港澳])|[A-HJK][A-HJ-NP-Z0-9][0-9]{4}|[0-9]{5}[A-HJK])(?![A-Za-z0-9])"
)
_PLATE_WORD = re.compile("车牌|牌照|牌号|车号|號|号牌|车主|轿车|货车|客车|驾驶|车辆|車")


def _licence_plates(text: str, _: Sequence[Found]) -> Iterator[Found]:
    for match in _PLATE.finditer(text):
        around = text[max(match.start() - CONTEXT_CHARACTERS, 0) : match.end() + CONTEXT_CHARACTERS]
        digits = sum(map(str.isdigit, match[2]))
        # 新 and 云 are words too: 新A32000, 阿里云B12345.
        if digits >= 3 and (match[1] not in "新云雲" or _PLATE_WORD.search(around)):
            yield match.span()


_PASSPORT = re.compile(r"(?<![A-Za-z0-9])(?:[EGDSPHegdsph]\d|E[A-HJ-NP-Z])\d{7}(?![A-Za-z0-9])", re.ASCII)


def _passports(text: str, _: Sequence[Found]) -> Iterator[Found]:
    """Chinese passports; the form is that of many a product, so 护照 or passport has to stand before."""
    if re.search("护照|護照|passport", text, re.I):
        for match in _PASSPORT.finditer(text):
            if re.search("护照|護照|passport", _before(text, match.start()), re.I):
                yield match.span()


_FINDERS: dict[str, Callable[[str, Sequence[Found]], Iterator[Found]]] = {
    "email": _emails,
    "id_number": _id_numbers,
    "bank_card": _bank_cards,
    "mobile": _mobiles,
    "landline": _landlines,
    "ip_address": _ip_addresses,
    "licence_plate": _licence_plates,
    "passport": _passports,
}
