"""Templates inside a sentence: form around a text, marks, and those that show nothing."""

from megadec.corpus.clean.variant import TRADITIONAL
from megadec.corpus.clean.wiki.protect import LINE_BREAK
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, argument, constant, joined, names


def _javadoc(arguments: Arguments) -> str:
    """{{Javadoc:SE|java/lang|Object}}, {{Javadoc:SE|name|java/lang|Object}}: the class, or the name that is shown."""
    values = [value for value in arguments.positional() if "/" not in value]
    member = arguments.text("member")
    return arguments.text("name") or (f"{values[0]}.{member}" if values and member else values[0] if values else member)


def _character(arguments: Arguments) -> str:
    """{{unichar|4E00}}: `U+4E00 一`."""
    code = arguments.text(1)
    try:
        character = chr(int(code, 16))
    except (ValueError, OverflowError):
        return f"U+{code}" if code else ""
    return f"U+{code} {character}" if character.isprintable() else f"U+{code}"


def _offset(arguments: Arguments) -> str:
    hours = arguments.text(1)
    return f"UTC{hours if hours[:1] in ('+', '-', '−', '') else '+' + hours}"


def _regional(arguments: Arguments) -> str:
    """{{地区用词|cn=硅|tw=矽}}: the word of the page's script, and what is said of it first."""
    own, other = (
        (("cn", "hans"), ("tw", "hant", "hk"))
        if arguments.page.variant != TRADITIONAL
        else (
            ("tw", "hant", "hk"),
            ("cn", "hans"),
        )
    )
    word, start = arguments.text(*own, *other), arguments.text("start")
    return f"{word}（{start}）" if word and start else word


def _bracket(simplified: str) -> Recipe:
    """{{〈}} is 《 in Simplified text."""
    return lambda a: a.name if a.page.variant == TRADITIONAL else simplified


def _title(arguments: Arguments) -> str:
    return arguments.head or arguments.page.title


def _music(arguments: Arguments) -> str:
    signs = {"flat": "♭", "b": "♭", "sharp": "♯", "#": "♯", "natural": "♮", "quarter": "♩", "eighth": "♪"}
    kind = arguments.text(1).lower()
    return f"{arguments.text(2)}/{arguments.text(3)}" if kind in ("time", "meter") else signs.get(kind, "")


TABLE: Table = (
    # The first argument (or text=) is shown.
    (names("""
        nowrap, nobr, nobreak, nobold, noitalic, small, smaller, big, larger, large, huge, center, align-center
        u, tiny, underline, s, strike, del, ins, sub, bold, b, i, italic, em, strong, abbr, tooltip, kbd
        code, mono, monospace, tt, var, mvar, math, unicode, 僻字, 專名號, 专名号, 專名, 专名, 書名號, 书名号
        波浪線, uw, 地名, 人名, red, green, blue, orange, gray, grey, purple, brown, black, white, pink, yellow
        直排, hl, vertical, mark, highlight, wikt, wiktionary, 维基词典, 維基詞典, spaced, chem2, pua, 楷体
        楷體, 宋体, 宋體, 標楷體, 标楷体, 黑体, 黑體, 仿宋, tq, no wrap, as written, not a typo, typo
        proper name, smallcaps, sc, sc1, small caps, aut, allcaps, caps, visible anchor, vanchor, annotated link
        不换行, 不換行, 小字, 大字, 粗体, 粗體, 斜体, 斜體, 下划线, 底線, 刪除線, 删除线, 縮寫, 缩写, overline
        overset, underset, hanging indent, indent text, keyb, midsize, nowiki text, sic, linkto, noprint
        noredlink, samp, screen-only, avoid wrap, nowraplinks, wj, tcy, 縱中橫, serif, sans-serif, script, hira
        kana, raise, lower, nonbreaking, vernacular name, au, 字, 字符, angbr, angle bracket, xt, !xt, samp2
        strikethrough, transparent, noflag, dfn, 强调, 強調, explain, abbrlink, 書名, 书名, 波浪號, 波浪号,
        x-larger, xx-larger, x-large, xx-large, x-small, x-smaller, 大, 小, 红, 紅, 红色, 紅色, 蓝, 藍, 蓝色, 藍色,
        绿, 綠, 绿色, 綠色, 上标文字, 異體字, 异体字, 文字, 文本, nowrap2, 粗, 斜, 强, 強, nq, 原文, 青空文庫
        内容, iast, hebrew
        script/hebrew, script/arabic
        arabic, polytonic, greek, thai, tamil, devanagari, script/mongolian, mongolunicode, 蒙古文, 滿文, 满文
        manchunicode, 藏文, mongol unicode, citation needed span, cn-span, fact span, 来源请求范围, 來源請求範圍
    """), argument(1, "text", "content")),
    # The second is shown: the first names a colour, a file, a size or a sorting key.
    (names("""
        color, 字体颜色, 字體顏色, font color, fontcolor, colored text, text color, background color, bg
        bgcolor, resize, audio, 音频, 音頻, sort, 排序, 顏色, 颜色, font, fs, color text, colour, colorize
        fontsize, 字体, 字體, 字號, 字号, legend, legend2, legend0, legend line, legend inline, h:title, hover title
        hover, 图例, 圖例, align, 对齐, 對齊
        bgcolour, background, 背景色, 背景, listen inline, wikisourcelink, sortkey, colored, colours, text2
    """), argument(2, "text", 1)),
    (names("""
        sortname, sort name, 排序姓名
    """), lambda a: a.text("dab") or "·".join(filter(None, (a.text(1), a.text(2))))),
    (names("color box, colorbox, 色块, 色塊, colour box, color sample"), argument(2)),
    (names("linktext, chem, simple chemical formula, 化学式, 化學式, zh-linktext, binomial, not typo, su"), joined("")),
    (names("key, keypress, key press, 按键, 按鍵"), joined("+")),
    (names("tick, check, checkmark, yes-tick, check mark, bluecheck, greentick, cm"), constant("✓")),
    (names("cross, x mark, xmark, redx, x mark-n, cross mark, red x"), constant("✗")),
    (["flat"], constant("♭")),
    (["sharp"], constant("♯")),
    (["natural"], constant("♮")),
    (names("ce"), argument(1)),
    (names("url, 网址, 網址, official url, 官方网址"), argument(2, 1)),
    (names("javadoc:se, javadoc, javadoc se"), _javadoc),
    (names("unichar, u+, 字元, unicode character"), _character),
    (names("utc, utc offset, 时区, 時區"), _offset),
    (names("music, 音樂符號, 音乐符号"), _music),
    (['"', "“", "引號", "引号", "quote inline2"], lambda arguments: f"“{arguments.text(1)}”"),
    (["'\"", "single double"], lambda arguments: f"'{arguments.text(1)}"),
    (["!", "!-", "pipe", "!!"], lambda arguments: "||" if arguments.name == "!!" else "|"),
    (["=", "equals"], constant("=")),
    (["·", "•", "dot", "bullet", "middot", ",", "."], constant("·")),
    (["--", "——", "dash", "mdash", "破折號", "破折号", "—", "emdash", "em dash", "spaced emdash"], constant("——")),
    (["ndash", "snd", "spaced ndash", "en dash", "–", "spnd", "endash"], constant("–")),
    (names("nbsp, space, spaces, -sp, thinsp, thin space, ensp, emsp, hairsp, pad"), constant(" ")),
    (["'", "apostrophe", "'s"], lambda arguments: "'s" if arguments.name == "'s" else "'"),
    (["br", "break", "brk", "crlf", "newline", "break2"], constant(LINE_BREAK)),
    (["...", "ellipsis", "省略號", "省略号", "…"], constant("……")),
    (["deg", "°", "degree"], constant("°")),
    (names("車站編號c, 车站编号c, 車站編號, 车站编号, station number, 駅番号"), argument(2, 1)),
    (names("sqrt, radic, √"), lambda a: f"√{a.text(1)}" if a.text(1) else ""),
    (["tmath"], lambda a: f"${a.text(1)}$" if a.text(1) else ""),
    (["pi"], constant("π")),
    (["tau"], constant("τ")),
    (["prime"], lambda a: f"{a.text(1)}′"),
    (["abs", "mabs"], lambda a: f"|{a.text(1)}|" if a.text(1) else ""),
    (["post-nominals", "postnominals", "post-nominals/sandbox"], joined(" ")),
    (names("circled, 圈, 圈字, circle, bold dark green, block indented"), argument(1)),
    (["times", "×"], constant("×")),
    (["minus", "−"], constant("−")),
    (["pm", "±"], lambda a: f"±{a.text(1)}"),
    (["(("], constant("{{")),
    (names("""
        pagename, fullpagename, basepagename, subpagename, fullpagenamee, pagenamee, rootpagename, subjectpagename
        articlepagename
    """), _title),
    (names("地区用词, 地區用詞, 地区词, 地區詞"), _regional),
    *(([bracket], _bracket(simplified)) for bracket, simplified in zip("〈〉「」『』", "《》“”‘’", strict=True)),
    (names("台湾植物, 臺灣植物, 台灣植物"), argument("zh")),
    (names("ietf rfc, rfc, cite ietf rfc"), lambda a: f"RFC {a.text(1)}" if a.text(1) else ""),
    (["sitename"], constant("维基百科")),
    # Known to show nothing of the page.
    (names("""
        gap, 间隔, 間隔, anchor, anchors, 锚点, 錨點, clear, -, clearleft, clearright, clr, toc, toc right, tocright
        toc limit
        toc left, zwsp, wbr, shy, zwnj, zwj, defaultsort, displaytitle, outdent, increase, decrease, steady
        growth, up, down, 上升, 下降, same, gain, nochange, no change, increasepositive, decreasepositive
        increasenegative, decreasenegative, profit, dtsh, hs, ntsh, hsp, ns, namespace, namespacenumber
        注音排序, sort hidden, 排序键, padlock, ga icon, fa icon, smiley, ref label, protection padlock
        featured article, good article, short description, use dmy dates, use mdy dates, coord, 坐标, 座標
    """), constant("")),
)  # fmt: skip
