"""The names of templates by what of them is text, and the words that some of them show.

Names are in lower case with blanks, in Simplified and Traditional, separated by commas or line ends.
"""


def names(text: str) -> list[str]:
    """A table's names: split at commas and line ends."""
    return [name for line in text.split("\n") for part in line.split(",") if (name := part.strip())]


def pairs(text: str) -> dict[str, str]:
    """A table of `name word`: the last blank of each entry divides them."""
    return {name: word for entry in names(text) for name, _, word in [entry.rpartition(" ")]}


# The first argument (or text=) is shown.
FIRST_ARGUMENT = names("""
    nowrap, nobr, nobreak, nobold, noitalic, small, smaller, big, larger, large, center, align-center, u
    underline, s, strike, del, sub, sup, bold, b, i, em, strong, abbr, tooltip, hover title, kbd, code, mono
    monospace, tt, var, mvar, math, unicode, ipa, ipa2, cjk, jan, zhm, zh-hans, zh-hant, 僻字, 專名號, 专名号
    專名, 专名, 書名號, 书名号, 波浪線, uw, 地名, red, green, blue, orange, gray, grey, purple, brown, black
    white, pink, yellow, flag, flagcountry, 国旗, 國旗, flagu, fb, lj, lk, jp, vertical, 直排, poem, 诗, hl
    mark, highlight, linkjp, nts, num, number, gapnum, dts, formatnum, zhongwen, wikt, wiktionary, 维基词典
    spaced, ordinal, chem2, ce, pua, 楷体, 楷體, 宋体, 標楷體, 标楷体, tq, no wrap, lang-zh, url
""")
# The second argument is shown, the first names a language, a colour, a file or a key.
SECOND_ARGUMENT = names("""
    lang, zh-lang, color, 字体颜色, font color, fontcolor, colored text, text color, background color, bg
    bgcolor, resize, audio, 音频, sort, rubyja, 顏色, 颜色, font, fs
""")
# {{link-en|中文|English|shown}}: links to an article that only another Wikipedia has; also every name link-xx.
FOREIGN_LINK = names("link-en, le, liw, link, interlanguage link, internal link helper, lw, lwh, red link")
FOREIGN_LINK_NAMED = names("link-interwiki, link-wd, 跨语言链接, 跨語言連結, ilh, ill, illm")
# {{tsl|en|English|中文|shown}}
FOREIGN_LINK_LANGUAGE_FIRST = names("tsl, translink, tslh, tsll")
LIST = names("hlist, plainlist, flatlist, unbulleted list, ubl, bulleted list, 无序列表, plain list, flat list")
JOINED = names("linktext, gaps, chem, key, keypress, 化学式, zh-linktext")
QUOTE = names("quote, cquote, quotation, blockquote, quote box, rquote, 引用, 引言, 引文, 古文, bquote, quote2, quotex")
RUBY = names("ruby, ruby-py, ruby-ja, rubi, 注音, 拼音, ruby2, ruby-zh")
MEASURE = names("convert, cvt, conv, 换算, 換算")
FRACTION = names("frac, fraction, sfrac, tfrac, 分数, 分數")
DATE = names("""
    start date, end date, birth date, death date, birth date and age, death date and age, film date
    start date and age, 日期, date, dob, bda
""")

LANGUAGES = pairs("""
    en 英语, fr 法语, de 德语, ja 日语, jp 日语, ko 韩语, ru 俄语, es 西班牙语, it 意大利语, pt 葡萄牙语
    la 拉丁语, el 希腊语, grc 古希腊语, ar 阿拉伯语, he 希伯来语, nl 荷兰语, sv 瑞典语, no 挪威语
    nb 书面挪威语, nn 新挪威语, da 丹麦语, fi 芬兰语, is 冰岛语, pl 波兰语, cs 捷克语, sk 斯洛伐克语
    hu 匈牙利语, ro 罗马尼亚语, bg 保加利亚语, sr 塞尔维亚语, hr 克罗地亚语, uk 乌克兰语, be 白俄罗斯语
    lt 立陶宛语, lv 拉脱维亚语, et 爱沙尼亚语, tr 土耳其语, fa 波斯语, hi 印地语, sa 梵语, bn 孟加拉语
    ta 泰米尔语, th 泰语, vi 越南语, id 印尼语, ms 马来语, mn 蒙古语, bo 藏语, ug 维吾尔语, ga 爱尔兰语
    cy 威尔士语, eo 世界语, ca 加泰罗尼亚语, eu 巴斯克语, fil 菲律宾语, tl 他加禄语, km 高棉语, my 缅甸语
    lo 老挝语, ka 格鲁吉亚语, hy 亚美尼亚语, kk 哈萨克语, uz 乌兹别克语, mnc 满语, yue 粤语, nan 闽南语
    ur 乌尔都语, sw 斯瓦希里语, sl 斯洛文尼亚语
""")
# {{CHN}} shows a flag and the country's name.
COUNTRIES = pairs("""
    chn 中国, prc 中国, roc 中华民国, twn 中华民国, hkg 香港, mac 澳门, usa 美国, us 美国, uk 英国, gbr 英国
    eng 英格兰, sco 苏格兰, fra 法国, deu 德国, ger 德国, ita 意大利, esp 西班牙, por 葡萄牙, ned 荷兰
    nld 荷兰, bel 比利时, sui 瑞士, che 瑞士, aut 奥地利, swe 瑞典, nor 挪威, fin 芬兰, den 丹麦, dnk 丹麦
    pol 波兰, cze 捷克, hun 匈牙利, rou 罗马尼亚, gre 希腊, grc 希腊, tur 土耳其, rus 俄罗斯, urs 苏联
    ussr 苏联, ukr 乌克兰, jpn 日本, kor 韩国, prk 朝鲜, vie 越南, vnm 越南, tha 泰国, sgp 新加坡, sin 新加坡
    mas 马来西亚, mys 马来西亚, ina 印度尼西亚, idn 印度尼西亚, phi 菲律宾, phl 菲律宾, ind 印度, pak 巴基斯坦
    irn 伊朗, irq 伊拉克, isr 以色列, egy 埃及, aus 澳大利亚, nzl 新西兰, can 加拿大, mex 墨西哥, bra 巴西
    arg 阿根廷, chi 智利, rsa 南非
""")
UNITS = pairs("""
    m 米, km 公里, cm 厘米, mm 毫米, mi 英里, ft 英尺, in 英寸, yd 码, nmi 海里, kg 公斤, g 克, t 吨, lb 磅
    oz 盎司, km2 平方公里, sqkm 平方公里, m2 平方米, sqmi 平方英里, sqft 平方英尺, ha 公顷, acre 英亩
    acres 英亩, l 升, L 升, km/h 公里/小时, mph 英里/小时, kn 节, C °C, F °F, °C °C, °F °F
""")
