"""Templates that show a name with a picture or a link: countries, teams, ships, stations, lines."""

import re

from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, constant, names, pairs


def country(name: str) -> str:
    """The name of a country's code (`CHN`, `GER-1933`); anything else is a name already."""
    plain = re.sub(r"-[0-9]{4}.*$", "", name.strip().lower().removeprefix("the "))
    return COUNTRIES.get(ENGLISH.get(plain, plain), name)


def by_prefix(name: str) -> Recipe | None:
    """The rule of {{GER-1933}}: a country's flag and name at a time."""
    code, hyphen, year = name.partition("-")
    return constant(COUNTRIES[code]) if hyphen and re.fullmatch(r"[0-9]{4}.*", year) and code in COUNTRIES else None


def _flag(arguments: Arguments) -> str:
    if shown := arguments.text("name"):
        return shown
    return arguments.words(country(arguments.text(1, "1", "country")))


def _person(arguments: Arguments) -> str:
    """{{flagathlete|姓名|USA}}"""
    name, team = arguments.text(1), arguments.words(country(arguments.text(2)))
    return f"{name}（{team}）" if name and team else name


def _forces(words: str) -> Recipe:
    return lambda a: a.words(f"{country(a.text(1))}{words}") if a.text(1) else ""


def _team(words: str) -> Recipe:
    return lambda a: a.words(f"{country(a.text(1))}{words}") if a.text(1) else ""


def _ship(prefix: str) -> Recipe:
    """{{USS|Enterprise|CV-6}}: `USS Enterprise (CV-6)`; the third argument says which of the three are shown."""

    def shown(arguments: Arguments) -> str:
        if not arguments.text(1):
            return ""
        return _ship_name(prefix, arguments.text(1), arguments.text(2), arguments.text(3))

    return shown


def _ship_name(prefix: str, name: str, number: str, form: str) -> str:
    number_shown = f"({number})" if number else ""
    parts = {
        "1": (name, number_shown), "2": (name,), "3": (prefix, name), "4": (number,), "5": (prefix, number),
    }.get(form, (prefix, name, number_shown))  # fmt: skip
    return " ".join(part for part in parts if part)


def _any_ship(arguments: Arguments) -> str:
    """{{ship|French cruiser|Gloire|1900}}"""
    return _ship_name(*(arguments.text(position) for position in (1, 2, 3, 4)))


def _ship_class(arguments: Arguments) -> str:
    name, kind = arguments.text(1), arguments.text(2)
    return f"{name}{arguments.words('级')}{kind}" if name else kind


def _station(word: str) -> Recipe:
    def shown(arguments: Arguments) -> str:
        name = arguments.text(1)
        return f"{name}{word}" if name and not name.endswith(("站", word)) else name

    return shown


def _station_of_system(arguments: Arguments) -> str:
    """{{stl|北京地铁|西直门}}: the station, not the system."""
    name, given = arguments.text(2), arguments.text(3)
    name = name if given.isdecimal() else given or name
    return f"{name}站" if name and not name.endswith("站") else name


def _line_of_system(arguments: Arguments) -> str:
    """{{lnl|上海地铁|2}}: `2号线`."""
    name = arguments.text(3, 2)
    return arguments.words(f"{name}号线") if name.isdecimal() else name


_SHIPS = """
    uss HMS, hms, hmas, hmcs, hmnzs, hmis, hmsas, rms, ss, ms, mv, mt, rfa, usns, usat, usrc, uscgc, sms, js
    jds, roks
    kri, orp, hnlms, hnoms, hdms, hswms, ara, bap, tcg, rocs, gts, hmhs, hmt, hmy, ps, tss, pns, fs, nrp, bns
    htms, kd
    csx, css, rv, sv, ts, bae, bns, ins, le, hmm, usav, ussc
"""
_SHIP_PREFIXES = [name for name in _SHIPS.replace(",", " ").split() if name not in ("le", "HMS", "hmm", "ussc", "csx")]

COUNTRIES = pairs("""
    chn 中国, prc 中国, cn 中国, roc 中华民国, twn 中华民国, roc-tw 中华民国, tpe 中华台北, hkg 香港, mac 澳门
    usa 美国, us 美国, uk 英国, gbr 英国, eng 英格兰, sco 苏格兰, wal 威尔士, wls 威尔士, nir 北爱尔兰, fra 法国
    deu 德国, ger 德国, frg 西德, gdr 东德, ita 意大利, esp 西班牙, por 葡萄牙, prt 葡萄牙, ned 荷兰, nld 荷兰
    bel 比利时, lux 卢森堡, sui 瑞士, che 瑞士, aut 奥地利, swe 瑞典, nor 挪威, fin 芬兰, den 丹麦, dnk 丹麦
    isl 冰岛, irl 爱尔兰, pol 波兰, cze 捷克, tch 捷克斯洛伐克, svk 斯洛伐克, hun 匈牙利, rou 罗马尼亚
    bul 保加利亚, bgr 保加利亚, gre 希腊, grc 希腊, tur 土耳其, rus 俄罗斯, urs 苏联, ussr 苏联, ukr 乌克兰
    blr 白俄罗斯, ltu 立陶宛, lva 拉脱维亚, lat 拉脱维亚, est 爱沙尼亚, mda 摩尔多瓦, srb 塞尔维亚, cro 克罗地亚
    hrv 克罗地亚, slo 斯洛文尼亚, svn 斯洛文尼亚, bih 波黑, mne 黑山, mkd 北马其顿, alb 阿尔巴尼亚, kos 科索沃
    yug 南斯拉夫, scg 塞尔维亚和黑山, mlt 马耳他, cyp 塞浦路斯, and 安道尔, mon 摩纳哥, mco 摩纳哥, smr 圣马力诺
    vat 梵蒂冈, lie 列支敦士登, jpn 日本, kor 韩国, rok 韩国, prk 朝鲜, dprk 朝鲜, mng 蒙古, mgl 蒙古, vie 越南
    vnm 越南, lao 老挝, cam 柬埔寨, khm 柬埔寨, tha 泰国, mya 缅甸, mmr 缅甸, sgp 新加坡, sin 新加坡
    mas 马来西亚, mys 马来西亚, ina 印度尼西亚, idn 印度尼西亚, phi 菲律宾, phl 菲律宾, bru 文莱, brn 文莱
    tls 东帝汶, ind 印度, pak 巴基斯坦, ban 孟加拉国, bgd 孟加拉国, sri 斯里兰卡, lka 斯里兰卡, nep 尼泊尔
    npl 尼泊尔, bhu 不丹, btn 不丹, mdv 马尔代夫, afg 阿富汗, irn 伊朗, iri 伊朗, irq 伊拉克, isr 以色列
    pse 巴勒斯坦, ple 巴勒斯坦, jor 约旦, lbn 黎巴嫩, syr 叙利亚, ksa 沙特阿拉伯, sau 沙特阿拉伯, uae 阿联酋
    are 阿联酋, qat 卡塔尔, kuw 科威特, kwt 科威特, bhr 巴林, oma 阿曼, omn 阿曼, yem 也门, kaz 哈萨克斯坦
    uzb 乌兹别克斯坦, tkm 土库曼斯坦, kgz 吉尔吉斯斯坦, tjk 塔吉克斯坦, geo 格鲁吉亚, arm 亚美尼亚, aze 阿塞拜疆
    egy 埃及, lby 利比亚, lba 利比亚, tun 突尼斯, alg 阿尔及利亚, dza 阿尔及利亚, mar 摩洛哥, sdn 苏丹, sud 苏丹
    ssd 南苏丹, eth 埃塞俄比亚, eri 厄立特里亚, som 索马里, dji 吉布提, ken 肯尼亚, uga 乌干达, tan 坦桑尼亚
    tza 坦桑尼亚, rwa 卢旺达, bdi 布隆迪, nga 尼日利亚, ngr 尼日利亚, gha 加纳, civ 科特迪瓦, sen 塞内加尔
    mli 马里, cmr 喀麦隆, gab 加蓬, cod 刚果民主共和国, cgo 刚果共和国, ang 安哥拉, ago 安哥拉, zam 赞比亚
    zmb 赞比亚, zim 津巴布韦, zwe 津巴布韦, moz 莫桑比克, bot 博茨瓦纳, bwa 博茨瓦纳, nam 纳米比亚, rsa 南非
    zaf 南非, mad 马达加斯加, mdg 马达加斯加, mri 毛里求斯, mus 毛里求斯, lbr 利比里亚, lib 黎巴嫩, sle 塞拉利昂
    tog 多哥, togo 多哥, ben 贝宁, nig 尼日尔, ner 尼日尔, tcd 乍得, cha 乍得, mwi 马拉维, maw 马拉维
    cpv 佛得角, aus 澳大利亚, nzl 新西兰, fij 斐济, fji 斐济, png 巴布亚新几内亚, sam 萨摩亚, wsm 萨摩亚
    tga 汤加, ton 汤加, vut 瓦努阿图, can 加拿大, mex 墨西哥, bra 巴西, arg 阿根廷, chi 智利, chl 智利
    uru 乌拉圭, ury 乌拉圭, par 巴拉圭, pry 巴拉圭, bol 玻利维亚, per 秘鲁, ecu 厄瓜多尔, col 哥伦比亚
    ven 委内瑞拉, guy 圭亚那, sur 苏里南, cub 古巴, jam 牙买加, hai 海地, hti 海地, dom 多米尼加, pur 波多黎各
    pri 波多黎各, tri 特立尼达和多巴哥, tto 特立尼达和多巴哥, bah 巴哈马, bhs 巴哈马, bar 巴巴多斯, brb 巴巴多斯
    crc 哥斯达黎加, cri 哥斯达黎加, pan 巴拿马, gua 危地马拉, gtm 危地马拉, hon 洪都拉斯, hnd 洪都拉斯
    esa 萨尔瓦多, slv 萨尔瓦多, nca 尼加拉瓜, nic 尼加拉瓜, blz 伯利兹, eu 欧盟, un 联合国
""")
# English names that editors give to {{flag}}, by the code.
ENGLISH = pairs("""
    china chn, people's republic of china chn, republic of china roc, taiwan twn, hong kong hkg, macau mac
    united states usa, united states of america usa, united kingdom gbr, great britain gbr, england eng
    scotland sco, wales wal, france fra, germany deu, italy ita, spain esp, portugal prt, netherlands nld
    belgium bel, luxembourg lux, switzerland che, austria aut, sweden swe, norway nor, finland fin, denmark dnk
    iceland isl, ireland irl, poland pol, czech republic cze, slovakia svk, hungary hun, romania rou
    bulgaria bgr, greece grc, turkey tur, russia rus, soviet union urs, ukraine ukr, belarus blr, serbia srb
    croatia hrv, slovenia svn, japan jpn, south korea kor, north korea prk, mongolia mgl, vietnam vnm, laos lao
    cambodia khm, thailand tha, myanmar mmr, singapore sgp, malaysia mys, indonesia idn, philippines phl
    india ind, pakistan pak, bangladesh bgd, sri lanka lka, nepal npl, iran irn, iraq irq, israel isr
    saudi arabia sau, united arab emirates are, qatar qat, kuwait kwt, kazakhstan kaz, egypt egy, morocco mar
    nigeria nga, kenya ken, ethiopia eth, south africa zaf, australia aus, new zealand nzl, canada can
    mexico mex, brazil bra, argentina arg, chile chl, peru per, colombia col, venezuela ven, uruguay ury
    cuba cub
""")
# Codes that are common templates of another meaning, or words: {{bar}}, {{per}}, {{sam}} ...
_NO_TEMPLATE = frozenset(
    (
        "bar",
        "per",
        "sam",
        "ton",
        "col",
        "and",
        "mon",
        "par",
        "pan",
        "ban",
        "geo",
        "can",
        "cha",
        "ben",
        "lat",
        "lib",
        "cn",
    )
)

TABLE: Table = (
    (names("""
        flag, flagcountry, flagu, flagg, flaglink, flagcountry2, 国旗, 國旗, 國旗連結, 国旗链接, fb, fb2, fbw
        fb big, nft, flagioc, flagioc2, flagcgf, flagpasg, flagteam, flagdeco name, cr, cr2, ru, ru2, rl, bk
        bkw, ih, ihw, vb, vbw, bb, hb, hbw, fut, tennis flag, 旗帜, 旗幟, fb-rt, fbw-rt, cr-rt, ru-rt, fb-u23
        fb-u20, fb-u17, flag+link, flagright, 国家, 國家, country, countryname, country name, 國家隊, 国家队
    """), _flag),
    (names("""
        flagicon, flagicon2, flagiconioc, flag icon, flagicon image, flagdeco, 国旗图标, 國旗圖標, 旗, fbicon
        fb icon, icon, flag-icon, flagmain, flagimage, bandeira
    """), constant("")),
    (names("""
        flagathlete, flagioc2athlete, flagcgfathlete, flagmedalist, flagiocathlete, flagiocmedalist, flagplayer
        sportsperson
    """), _person),
    (names("navy, 海军, 海軍"), _forces("海军")),
    (names("army, 陆军, 陸軍"), _forces("陆军")),
    (names("air force, airforce, 空军, 空軍"), _forces("空军")),
    (names("nftu, football team"), _team("国家足球队")),
    *(([name], _ship(name.upper())) for name in _SHIP_PREFIXES),
    (names("ship, 船, 船舰, 船艦"), _any_ship),
    (names("sclass, sclass-, sclass2, sclass2-, sclass3, ship class, 舰级, 艦級"), _ship_class),
    (names("""
        stn, 站, station, 台鐵車站, 臺鐵車站, 台铁车站, 高鐵車站, 高铁车站, jr站, jr車站, jr车站, 车站, 車站
        stnlnk, sta, 铁路车站, 鐵路車站, railway station, rws, tram, metro, 地铁站, 地鐵站, 捷運站, hkmtr, mtr
        駅, 火车站, 火車站, 港鐵站, 轻轨站, 輕軌站, trst
    """), _station("站")),
    (names("stl, 系统站, 系統站, station link, stnl, 站链接, 站連結, smtst, lrt, hmst, krail"), _station_of_system),
    (names("lnl, line link, 线路链接, 線路連結, 路線, rail line"), _line_of_system),
    (names("""
        rint, ric, rail-interchange, bsicon, bs icon, rcb, rail color box, rail icon, 轨道交通标志, 軌道交通標誌
    """), constant("")),
    *(([code], constant(name)) for code, name in COUNTRIES.items() if code not in _NO_TEMPLATE),
)  # fmt: skip
