"""Templates of languages: foreign words and their readings, and links to articles that only another Wikipedia has."""

import re

from megadec.corpus.clean.conversion import shielded
from megadec.corpus.clean.wiki.templates.arguments import (
    Arguments,
    Recipe,
    Table,
    argument,
    constant,
    joined,
    names,
    pairs,
)

_CODE = re.compile(r"[a-z]{2,3}(?:-[a-z0-9]{2,8})*$", re.IGNORECASE)
_IPA_WORDS = frozenset(("lang", "pron", "pronunciation", "us", "uk", "ipa", "local", "also", "au", "in", "ie", "small"))


def labelled(code: str, text: str, arguments: Arguments) -> str:
    """`英语：tea`, as {{lang-en|tea}} shows it; the text alone for a language that the table lacks."""
    name = LANGUAGES.get(code.lower()) or LANGUAGES.get(code.lower().split("-")[0], "")
    shown = as_written(code, text)
    return f"{arguments.words(name)}：{shown}" if name and text else shown


def as_written(code: str, text: str) -> str:
    """Japanese words keep their characters where a page is converted: 国際 is no Simplified Chinese."""
    return shielded(text) if text and code.lower().split("-")[0] in ("ja", "jp", "jpn") else text


def by_prefix(name: str) -> Recipe | None:
    """The rule of a name that ends in a language's code: lang-en, link-en, ipa-fr, internal link helper/en, xx icon."""
    if match := re.fullmatch(r"langx?-(.+)", name):
        return lambda arguments: labelled(match[1], arguments.text(1, "t"), arguments)
    linked = re.fullmatch(r"(?:link-|(?:le|ilh|tsl|translink|ill|internal link helper)[-/ ])([a-z-]{2,12})", name)
    if linked and (linked[1] in LANGUAGES or linked[1].partition("-")[0] in LANGUAGES):
        return FOREIGN_LINK
    if re.fullmatch(r"ipa-[a-z-]{2,8}", name):
        return _pronounced
    if re.fullmatch(r"[a-z]{2,3}(?:-[a-z]{2,4})? icon|lang icon", name):
        return constant("")
    return None


def _foreign_link(arguments: Arguments) -> str:
    """{{link-en|中文|English|显示}}: what is shown, else the Chinese title; never the foreign one."""
    given = arguments.text("zh_text", "d", "nt", "lt", "display", "text", "显示", "顯示")
    third = arguments.text(3)
    return given or ("" if third.lower() in LANGUAGES else third) or arguments.text("zh", "title", "tzh", 1)


def _foreign_link_named(arguments: Arguments) -> str:
    """{{ill|中文|en|English|lt=显示}}, and with the language first: {{ill|en|中文|English}}."""
    code, second = arguments.text(1).lower(), arguments.text(2)
    first = 2 if code in LANGUAGES and second and second.lower() not in LANGUAGES else 1
    return arguments.text("zh_text", "d", "lt", "display", "zh", "title", first)


def _foreign_words(arguments: Arguments) -> str:
    """{{lang|fr|mots}}, on one line though an editor has wrapped it."""
    given = arguments.text(2, "text") or ("" if _CODE.match(arguments.text(1)) else arguments.text(1))
    text = re.sub(r"[ \t]*\n[ \t]*(?=[^\s*#:;|!])", " ", given)
    return as_written(arguments.text(1) if arguments.text(2) else "", text)


def _language_first(arguments: Arguments) -> str:
    """{{tsl|en|Foreign|中文|显示}}: the foreign title only where it is all there is."""
    return arguments.text(4, "d", 3, "zh", 2) if _CODE.match(arguments.text(1)) else arguments.text(3, 1)


def _ruby(arguments: Arguments) -> str:
    base, reading = arguments.text(1), arguments.text(2)
    return f"{base}（{reading}）" if base and reading else base


def _ruby_language(arguments: Arguments) -> str:
    """{{ruby-xx|lang|base|reading}} and {{ruby|base|reading}}."""
    if _CODE.match(arguments.text(1)) and arguments.text(3):
        return f"{arguments.text(2)}（{arguments.text(3)}）"
    return _ruby(arguments)


def _nihongo(arguments: Arguments) -> str:
    shown = arguments.text(1)
    given = (as_written("ja", arguments.text(2)), arguments.text(3), arguments.text(4, "extra"))
    rest = [text for text in given if text]
    return f"{shown}（{'，'.join(rest)}）" if shown and rest else shown or "，".join(rest)


def _parts(**labels: tuple[str, ...]) -> Recipe:
    """`label：text` of each named argument that is given."""

    def shown(arguments: Arguments) -> str:
        return "；".join(
            f"{arguments.words(label)}：{as_written('ja' if label == '日语' else '', text)}" if label != "_" else text
            for label, wanted in labels.items()
            if (text := arguments.text(*wanted))
        )

    return shown


def _japanese(arguments: Arguments) -> str:
    """Alone {{jpn}} is Japan's flag and name; with arguments it gives a Japanese spelling."""
    return _JAPANESE(arguments) or (arguments.words("日本") if arguments.name == "jpn" else "")


def _korean(arguments: Arguments) -> str:
    return _KOREAN(arguments) or (arguments.words("韩国") if arguments.name == "kor" else "")


def _pronounced(arguments: Arguments) -> str:
    text = arguments.text(1)
    return text if not text or text[0] in "/[" else f"[{text}]"


def _ipa(arguments: Arguments) -> str:
    """{{IPA|tiː}}, and with a language: {{IPA|en|tiː}}."""
    text = arguments.text(2)
    return (
        (f"[{text}]" if text[0] not in "/[" else text) if text and _CODE.match(arguments.text(1)) else arguments.text(1)
    )


def _phonemes(arguments: Arguments) -> str:
    """{{IPAc-en|ˈ|æ|p|əl}}: the signs joined."""
    signs = [value for value in arguments.positional() if value.lower() not in _IPA_WORDS]
    return f"/{''.join(signs)}/" if signs else ""


def _transliteration(arguments: Arguments) -> str:
    return arguments.text(3, 2, 1)


def _language_name(arguments: Arguments) -> str:
    code = arguments.text(1) or arguments.head
    return arguments.words(LANGUAGES.get(code.lower(), ""))


LANGUAGES = pairs("""
    en 英语, en-us 美国英语, en-gb 英国英语, fr 法语, de 德语, ja 日语, jp 日语, ko 韩语, ru 俄语, es 西班牙语
    it 意大利语, pt 葡萄牙语, pt-br 巴西葡萄牙语, la 拉丁语, el 希腊语, gr 希腊语, grc 古希腊语, ar 阿拉伯语
    he 希伯来语, nl 荷兰语, sv 瑞典语, no 挪威语, nb 书面挪威语, nn 新挪威语, da 丹麦语, fi 芬兰语, is 冰岛语
    pl 波兰语, cs 捷克语, cz 捷克语, sk 斯洛伐克语, hu 匈牙利语, ro 罗马尼亚语, bg 保加利亚语, sr 塞尔维亚语
    hr 克罗地亚语, bs 波斯尼亚语, mk 马其顿语, uk 乌克兰语, be 白俄罗斯语, lt 立陶宛语, lv 拉脱维亚语
    et 爱沙尼亚语, tr 土耳其语, ota 奥斯曼土耳其语, fa 波斯语, hi 印地语, sa 梵语, pi 巴利语, bn 孟加拉语
    ta 泰米尔语, te 泰卢固语, mr 马拉地语, gu 古吉拉特语, kn 卡纳达语, ml 马拉雅拉姆语, pa 旁遮普语, ne 尼泊尔语
    si 僧伽罗语, th 泰语, vi 越南语, id 印尼语, ms 马来语, jv 爪哇语, mn 蒙古语, bo 藏语, dz 宗喀语, ug 维吾尔语
    ga 爱尔兰语, gd 苏格兰盖尔语, cy 威尔士语, br 布列塔尼语, eo 世界语, ca 加泰罗尼亚语, eu 巴斯克语
    gl 加利西亚语, oc 奥克语, fil 菲律宾语, tl 他加禄语, ceb 宿务语, km 高棉语, my 缅甸语, lo 老挝语
    ka 格鲁吉亚语, hy 亚美尼亚语, az 阿塞拜疆语, kk 哈萨克语, ky 吉尔吉斯语, uz 乌兹别克语, tk 土库曼语
    tg 塔吉克语, tt 鞑靼语, mnc 满语, yue 粤语, nan 闽南语, hak 客家语, wuu 吴语, ii 彝语, za 壮语, ur 乌尔都语
    ps 普什图语, ku 库尔德语, sw 斯瓦希里语, am 阿姆哈拉语, so 索马里语, ha 豪萨语, yo 约鲁巴语, zu 祖鲁语
    af 南非语, mt 马耳他语, sq 阿尔巴尼亚语, sl 斯洛文尼亚语, lb 卢森堡语, fy 弗里斯兰语, fo 法罗语, ang 古英语
    fro 古法语, non 古诺尔斯语, akk 阿卡德语, sux 苏美尔语, arc 阿拉姆语, cop 科普特语, egy 古埃及语
    haw 夏威夷语, mi 毛利语, sm 萨摩亚语, to 汤加语, nah 纳瓦特尔语, qu 克丘亚语, gn 瓜拉尼语, yi 意第绪语
    zh 中文, zh-hans 简体中文, zh-hant 繁体中文, zh-cn 简体中文, zh-tw 繁体中文, lzh 文言文
""")

_JAPANESE = _parts(
    日语=("j", "kj", "s", "kanji", "1"), 平假名=("hg",), 片假名=("k", "kk", "kana"), 罗马字=("rm", "r", "romaji")
)
_KOREAN = _parts(_=("k", "hangul", "h", "1"), 汉字=("hj", "hanja"), 罗马字=("rr", "rm"))
_CHINESE = _parts(
    中文=("c",), 简体中文=("s", "zh-hans"), 繁体中文=("t", "zh-hant"), 拼音=("p", "hp", "pinyin"), 注音=("b", "bpmf"),
    威妥玛拼音=("w",),
    粤拼=("j", "jy"), 粤语拼音=("cy", "y"), 白话字=("poj",), 直译=("l", "lit"),
)  # fmt: skip
FOREIGN_LINK: Recipe = _foreign_link

TABLE: Table = (
    (names("lang, zh-lang, 外语, 外語, 语言, 語言, langue, langnf, wikt-lang"), _foreign_words),
    (["langx"], lambda arguments: labelled(arguments.text(1), arguments.text(2), arguments)),
    (names("""
        link-en, le, lj, lf, lke, link, internal link helper, lw, lwh, red link, lang link, en-link, illm-lite
        lk, ld, li, lr, lee, link language, redlink, 蓝链, 藍鏈, 藍鍊, 蓝链接, 外语链接, 外語連結, 绿链, 綠鏈
        內部連結助手, 内部链接助手, 内部連結
        跨维基链接, 跨維基連結, 红链, 紅鏈, 链接, 連結, 鏈接, link-interlanguage
    """), FOREIGN_LINK),
    (names("""
        link-interwiki, link-wd, link-wikidata, link wd, 跨语言链接, 跨語言連結, 跨語言鏈接, 跨语言連結
        跨语言内链, interlanguage link, interlanguage link multi, liw, 仮リンク, interlanguage link wikidata
        ilh, ill, illm, ill2, ill-wd, iw2, liwd, 跨語言內鏈, 语际链接, 語際連結, 多语言链接, 多語言連結
    """), _foreign_link_named),
    (names("tsl, translink, tslh, tsll, tsl2, 翻译链接, 翻譯連結, translation link, 译链, 譯鏈"), _language_first),
    (names("""
        ruby, rubi, ruby2, 注音, 拼音, ruby-py, ruby-ja, ruby-zh, ruby-zh-b, ruby-zh-p, 旁註, 旁注, furigana
        rubyh, ruby/ja, ruby/zh, ruby/zh-b, ruby/zh-p, ruby/ko
    """), _ruby_language),
    (names("rubyja, ruby-ko"), argument(2, 1)),
    (names("transl, transliteration, 转写, 轉寫"), _transliteration),
    (names("nihongo, nihongo2, nihongo3, nihongo4, nihongo krt, nihongo core, nihongo foot, 日語, 日语"), _nihongo),
    (names("jpn, japanese, ja, jahira, 日文"), _japanese),
    (names("kor, korean, ko, ko-hhrm, 韓文, 韩文"), _korean),
    (names("vie, vietnamese, vi"), _parts(越南语=("v", "q", "1"), 汉字=("hn", "h", "2"))),
    (names("bo, tibetan"), _parts(藏语=("t", "1"), 威利转写=("w", "2"), 藏语拼音=("z", "3"))),
    (names("""
        zh, lang-zh, zh-hanp, zhi, chinese, zh-full, zh-all, zh-cp, zh-c, 中文名
    """), lambda a: _CHINESE(a) or a.text(1)),
    (names("""
        ipac-en, ipac-fr, ipac-de, ipac-ja, ipac-cmn, ipac-yue, ipac-pl, ipac-it, ipac-nl, ipac-es, ipac-ru
    """), _phonemes),
    (names("""
        ipa, ipa2, ipalink, ipa link, ipaslink, ipablink, 国际音标, 國際音標, 音标, 音標, pron, pron-en
        pronunciation text
    """), _ipa),
    (names("respell, usdict"), joined("-")),
    (names("""
        py, pinyin, 汉语拼音, 漢語拼音, bpmf, zhuyin, bopomofo, jyutping, 粤拼, 粵拼, romaji, hanzi, kanji
        hangul, hanja
    """), argument(1)),
    (names("""
        lang-zh-hans, zh-hans, zh-hant, cjk, jan, zhm, zhongwen, lang-zh-hant, zhs, zht, zh-cn, zh-tw
    """), argument(1)),
    (names("iso639, iso 639 name, languagename, #language, 语言名, 語言名"), _language_name),
)  # fmt: skip
