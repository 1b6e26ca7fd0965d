"""Templates of table cells: what stands in them, or the word that they show where nothing is given. Outside of a table
none shows anything: a template of the same name is another one."""

from megadec.corpus.clean.wiki.templates.arguments import Recipe, Table, argument, names


def _cell(word: str) -> Recipe:
    return lambda arguments: arguments.text(1, "text") or arguments.words(word)


# Banners of the same name ({{current}}, {{incomplete}}) are no cells: they would put a word above the page.
# word: the names of the templates that show it.
_CELLS = {
    "是": "yes, yes2, ya, aye, y, 是, active yes, yes check",
    "否": "no, no2, nay, no check, 否",
    "有": "有",
    "无": "无, 無, none",
    "部分": "partial, some, 部分, partially, mostly, mainly, partly",
    "不适用": "n/a, na, not applicable, 不适用, 不適用, n/a2",
    "未知": "unknown, 未知, dunno, unk, 不明, 不詳, 不详",
    "待定": "tba, tbd, pending, 待定, 待公布, 未定, to be announced, tbc",
    "获奖": "won, 获奖, 獲獎, 得奖, 得獎, win award, 荣获, 榮獲, awarded, 當選, 当选",
    "提名": "nom, nominated, 提名, nominee, 入围, 入圍, shortlisted, longlisted",
    "落选": "not won, lost award, 落選, 落选",
    "胜": "win, won-match, 胜, 勝, win2",
    "负": "loss, lost, 负, 負, loss2",
    "平": "draw, tie, 平, 平局",
    "可能": "maybe, possibly, 可能",
    "偶尔": "sometimes, rarely, occasionally",
    "通常": "usually, often",
    "良好": "good, 良好",
    "不佳": "bad, poor",
    "尚可": "okay, ok, average",
    "免费": "free, 免费, 免費, gratis",
    "付费": "nonfree, paid, 付费, 付費",
    "专有": "proprietary, 专有, 專有",
    "开源": "open source, 开源, 開源",
    "测试": "beta, alpha, testing",
    "取消": "cancelled, canceled, 取消, 已取消",
    "终止": "discontinued, terminated, 终止, 終止, ended",
    "进行中": "ongoing, 进行中, 進行中, in progress",
    "已完成": "done, completed, 已完成, 完成, complete",
    "未完成": "not done, 未完成",
    "已上映": "已上映, released, 上映",
    "未上映": "未上映, unreleased",
    "即将上映": "即将上映, 即將上映, upcoming",
    "播出中": "播出中, 播放中, on air, airing",
    "已播出": "已播出, 已播完, 已播畢, aired",
    "未播出": "未播出, 待播, unaired",
    "计划中": "planned, 计划中, 計劃中, scheduled, 規劃中",
    "建设中": "建设中, 建設中, 施工中, 兴建中, 興建中, building",
    "已通过": "passed, 通过, 通過, approved, 已通过, 已通過",
    "未通过": "failed, rejected, 未通过, 未通過, fail",
    "晋级": "advanced, qualified, 晋级, 晉級, through",
    "淘汰": "eliminated, 淘汰, 出局, out",
    "安全": "safe, 安全, saved",
    "包含": "included, 包含",
    "移除": "dropped, removed, 移除",
    "支持": "supported, 支援, 支持",
    "不支持": "unsupported, 不支持, 不支援, not supported",
    "需要": "needed, required, 需要",
    "不需要": "not required, 不需要",
    "第一名": "first place, gold1",
}
TABLE: Table = (
    *((names(templates), _cell(word)) for word, templates in _CELLS.items()),
    (names("version, 版本, 软件版本, 軟體版本"), argument(2)),
    (names("table cell, cell, 单元格, 儲存格, terminated2, site active, site inactive, color cell"), argument(1)),
    (names("gold medal, gold1, gold, 金牌, gold01"), _cell("金牌")),
    (names("silver medal, silver2, silver, 银牌, 銀牌, silver02"), _cell("银牌")),
    (names("bronze medal, bronze3, bronze, 铜牌, 銅牌, bronze03"), _cell("铜牌")),
)
