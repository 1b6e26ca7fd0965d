"""Templates that hold blocks of text: quotations, lists, columns, what is folded, episodes and tracks."""

import re

from megadec.corpus.clean.wiki.protect import LINE_BREAK
from megadec.corpus.clean.wiki.templates.arguments import Arguments, Recipe, Table, argument, constant, names

_LIST_MARK = re.compile(r"^[ \t]*[*#:;]+[ \t]*", re.MULTILINE)


def block(*parts: str) -> str:
    """The parts that are not empty on lines of their own, list marks gone."""
    lines = [line for part in parts if (line := _LIST_MARK.sub("", part).strip())]
    return LINE_BREAK + LINE_BREAK.join(lines) + LINE_BREAK if lines else ""


def _quote(arguments: Arguments) -> str:
    text = arguments.text(1, "text", "quote", "content", "quotetext", "引文", "内容", "內容")
    source = "，".join(
        dict.fromkeys(
            found
            for wanted in (
                (2, "author", "by", "sign", "作者"),
                (3, "source", "cite", "title", "出处", "出處", "來源", "来源"),
            )
            if (found := arguments.text(*wanted))
        )
    )
    return block(f"{text}——{source}" if source and text else text)


def _quote_with_marks(arguments: Arguments) -> str:
    """{{cquote|text|width|height|author|source}} and {{rquote|left|text|author|source}}."""
    if arguments.text(1).lower() in ("left", "right", "center", "左", "右"):
        text, source = arguments.text(2, "text"), "，".join(filter(None, (arguments.text(3), arguments.text(4))))
        return block(f"{text}——{source}" if source else text)
    text = arguments.text(1, "text", "quote")
    source = "，".join(filter(None, (arguments.text("author", 4), arguments.text("source", 5))))
    if not source and not re.fullmatch(r"[0-9.]*(?:px|em|%)?", arguments.text(2)):
        source = "，".join(filter(None, (arguments.text(2), arguments.text(3))))
    return block(f"{text}——{source}" if source and text else text)


def _list(arguments: Arguments) -> str:
    return block(arguments.text("title", "标题", "標題"), *arguments.positional())


def _folded(arguments: Arguments) -> str:
    """{{hidden|title|text}}"""
    title = arguments.text("header", "title", "head", "标题", "標題")
    if title:
        return block(title, arguments.text("content", "text", "body", "contents", "内容", "內容", 1, 2))
    return block(arguments.text(1), arguments.text(2, "content", "text", "内容", "內容"))


def _collapsed(arguments: Arguments) -> str:
    """{{collapse|text|title}}"""
    return block(arguments.text(2, "title", "header"), arguments.text(1, "text", "content"))


def _fold_begin(arguments: Arguments) -> str:
    return block(arguments.text("title", "header", "标题", "標題", 1))


def _columns(arguments: Arguments) -> str:
    """Columns by position, or col1=, col2=, ...; a list alone."""
    values = [value for _, value in arguments.numbered("col")] or arguments.positional()
    # A first argument of a number or a width says how many columns or how wide.
    return block(*(v for v in values if not re.fullmatch(r"[0-9.]+(?:em|px|%)?", v)), arguments.text("content", "list"))


def _paragraphs(*wanted: int | str) -> Recipe:
    return lambda arguments: block(arguments.text(*wanted))


def _episode(arguments: Arguments) -> str:
    number = arguments.text("episodenumber", "集数", "集數", "episodenumber2", "集")
    titles = [
        arguments.text(*wanted)
        for wanted in (
            ("title", "rtitle", "englishtitle", "标题", "標題", "中文标题", "中文標題", "chinesetitle", "aux1title"),
            ("translittitle", "kanjititle", "nativetitle", "日文標題", "日文标题"),
        )
    ]
    title = " ".join(dict.fromkeys(filter(None, titles)))
    heading = arguments.words(f"第{number}集") if number.isdecimal() else number
    return block(
        f"{heading} {title}".strip(), arguments.text("shortsummary", "summary", "剧情", "劇情", "简介", "簡介", "摘要")
    )


def _tracks(arguments: Arguments) -> str:
    notes = dict(arguments.numbered("note"))
    titles = arguments.numbered("title") or arguments.numbered("曲名") or arguments.numbered("标题")
    lines = [f"{number}. {title}" + (f"（{notes[number]}）" if number in notes else "") for number, title in titles]
    return block(arguments.text("headline", "标题", "標題"), *lines)


def _volume(arguments: Arguments) -> str:
    """A volume of a comic: its title, chapters and summary."""
    return block(
        arguments.text("title", "originaltitle", "licensedtitle", "标题", "標題"),
        arguments.text("chapterlist"),
        arguments.text("chapterlistcol1"),
        arguments.text("chapterlistcol2"),
        arguments.text("summary", "shortsummary", "简介", "簡介"),
    )


def _cast(arguments: Arguments) -> str:
    return block(*arguments.positional(), arguments.text("content", "text"))


def _player(arguments: Arguments) -> str:
    """A line of a football squad: number, position, name."""
    number, position, name = (arguments.text(wanted) for wanted in ("no", "pos", "name"))
    return block(" ".join(filter(None, (number, position, name)))) if name else ""


def _match(arguments: Arguments) -> str:
    """{{footballbox|date=|team1=|score=|team2=}}"""
    sides = " ".join(filter(None, (arguments.text(wanted) for wanted in ("team1", "score", "team2"))))
    day = arguments.text("date")
    return block(f"{day}：{sides}" if day and sides else sides)


def _equation(arguments: Arguments) -> str:
    """{{equation box 1|title=|equation=}}, {{numblk|:|formula|number}}."""
    if arguments.name in ("numblk", "numbered block", "bi"):
        return block(arguments.text(2))
    return block(arguments.text("title", "name"), arguments.text("equation", "statement", "text", 1))


def _reviews(arguments: Arguments) -> str:
    """{{album ratings}} and the like: who gave which score."""
    scores = dict(arguments.numbered("score"))
    return block(*(f"{who}：{scores[number]}" for number, who in arguments.numbered("rev") if number in scores))


TABLE: Table = (
    (names("""
        quote, quotation, blockquote, quote box, quotebox, 引用, 引言, 引文, 古文, bquote, quote2, quotex
        block quote, bq, poem quote, poemquote, 引用文, 引用框, quote frame, long quote, 語錄, 语录, quotation2
        centered quote, centered pull quote, 文言, 文言文, 古籍引文, 引文框, quotebox4, quote paper, cite quote
        名言, qb
        quote1, letter, epigraph, displayquote, 原文引用, 經文, 经文, q, pull quote
    """), _quote),
    (names("cquote, cquote2, rquote, cquotetxt, cq, centerquote"), _quote_with_marks),
    (names("""
        poem, 诗, 詩, 诗词, 詩詞, 古诗, 古詩, 歌词, 歌詞, lyrics, verse, 诗歌, 詩歌, stanza, block indent
        blockindent, in5, indent, 缩进, 縮排, box, 框, boxed, textbox, text box, frame, center block, stack
        floating box, pre, pre2, 剧情, 劇情, 情节, 情節, plot, cast, 正文, paragraph, para, p, transcript
        dialogue, 对白, 對白, scroll box, scrollbox, 卷轴, 捲軸, scroll, 文字框, col, left, right, 左, 右, 居中
        置中, align block, floatleft, floatright, divbox, div box, 首字下沉, blocktext, term, defn, gloss
    """), _paragraphs(1, "text", "content", "内容", "內容", "quote")),
    (names("""
        hlist, plainlist, flatlist, unbulleted list, ubl, ublist, bulleted list, blist, 无序列表, 無序列表
        plain list, flat list, ordered list, numbered list, olist, 有序列表, 列表, list, ubt
        comma separated entries, cslist, pagelist, inline list, collapsible list, 可折叠列表, 可折疊列表
        折叠列表, 摺疊列表, hidden list, tree list, simple horizontal list, 水平列表, 横列表, 橫列表
        bulletedlist, 無標列表, 无标列表, 項目列表, 项目列表, cmn, 简单列表, 簡單列表
    """), _list),
    (names("""
        hidden, 隐藏, 隱藏, 折叠, 摺疊, 折疊, show, hide, 显示, 顯示, 可折叠, 可摺疊, 可隐藏, 可隱藏
        collapsible, nav, collapsible section, collapsible text, collapsed text, 可折叠文字, 可摺疊文字, 折叠文字
        hidden section, 可折叠内容, 折疊內容
    """), _folded),
    (names("collapse, collapsed, 折叠内容, 摺疊內容"), _collapsed),
    (names("""
        hidden begin, hiddenbegin, collapse top, collapsetop, navtop, 折叠开始, 折疊開始, 摺疊開始, 隐藏开始
        隱藏開始, hidden top, nav top, cot, hat, 折叠上, 摺疊上, 可折叠开始, 可折疊開始, show begin, 剧透开始
        collapsible top, hideh, hide top, hide begin, 折叠框开始
    """), _fold_begin),
    (names("""
        columns-list, columns list, columns, column list, columns2, col list, 分栏列表, 分欄列表, 多栏列表
        多欄列表, 多列, 分栏, 分欄, div col list, multicol list, 列表多栏, 列表多欄, 2columns, col-list
        columnslist, multi-column numbered list, 3columns, col float, two column, 多欄, 多栏, collist, 分列
        並列, 并列, column, columnlist
    """), _columns),
    (names("""
        div col, div col begin, div col end, colbegin, colend, col-begin, col-begin-small, col-2, col-3, col-4
        col-5, col-1-of-2, col-2-of-2, col-break, colbreak, col-start, col-end, col begin, col end, col break
        columns end, columns start, columns-start, column-end, multicol, multicol-break, multicol-end
        multicol-section, end, end plainlist, endplainlist, startplainlist, flatlist end, startflatlist
        endflatlist, hlist start, hidden end, hiddenend, hidef, hide bottom, hide end, end div col
        collapse bottom, collapsebottom, navend, navbottom
        nav bottom, cob, hab, 折叠结束, 折疊結束, 摺疊結束, 隐藏结束, 隱藏結束, hidden bottom, 折叠下, 摺疊下
        spoiler, spoilers, endspoiler, spoiler end, 剧透, 劇透, 剧透结束, 劇透結束, quote end, box end
        stack begin, stack end, s-end, top, mid, bottom, divcol, divcolend, div col start, 分栏开始, 分欄開始
        分栏结束, 分欄結束, col-float, col-float-break, col-float-end, refbegin, refend, bulleted list end
        ordered list end, glossary, glossary end, term end, defn end, poem end, pf begin, pf end, rh, bottom2
        center begin, center end, small begin, small end, div end, tree list/end, font start, font end
        nowrap begin, nowrap end, wrap
    """), constant("")),
    (names("""
        episode list, episode list/sublist, japanese episode list, episodelist, 剧集列表, 劇集列表, 分集列表
        集数列表, 集數列表, 剧集, 劇集, 分集, japanese episode list/sublist, tv episode, episode
        television episode, 每集列表, 分集剧情, 分集劇情, episode list (japanese), english episode list
        動畫分集, 动画分集, chinese episode list, episode list 2
    """), _episode),
    (names("""
        tracklist, track listing, tracklisting, 曲目, 曲目列表, track list, tracks, 歌曲列表, 专辑曲目, 專輯曲目
    """), _tracks),
    (names("""
        graphic novel list, graphic novel list/sublist, 漫画列表, 漫畫列表, 卷列表, numbered chapter list
        单行本, 單行本
    """), _volume),
    (names("equation box 1, equation box, equation, 公式, numblk, numbered block, math theorem, bi"), _equation),
    (names("side box, sidebox, sidebar box, tip, markup, 代码示例, 程式碼範例"), _cast),
    (names("episode table, episodetable, 剧集表格, 劇集表格, 分集表格"), _paragraphs("episodes")),
    (names("verse translation, 对照, 對照, quote with translation, 对联, 對聯, 楹联, 楹聯"), _cast),
    (names("""
        fs player, nat fs player, football squad player, fs2 player, extended football squad player, 足球球員
    """), _player),
    (names("""
        footballbox, football box, footballbox collapsible, football box collapsible, 足球比赛, 足球比賽
    """), _match),
    (names("cast listing, cast list, castlist, 演員列表, 演员列表"), _cast),
    (names("album ratings, album reviews, video game reviews, professional ratings"), _reviews),
    (names("center2, 段落, section text, nowrap block"), argument(1)),
)  # fmt: skip
