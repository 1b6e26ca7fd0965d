"""Forms of Weibo and other comments that are no prose: repost chains, replies, mentions, emoticon codes, short links.

Each form is taken out by an option of its own and counted under its own name, in full width (`／／＠老王：`)
as in half.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from megadec.common.errors import check_some
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.document import Document

# What people call themselves on Weibo: letters, Han, digits, _ and -, at most 30, at most 15 of them Han.
_NAME = r"(?!(?:[A-Za-z0-9_\u00b7-]{0,29}[^\WA-Za-z0-9_]){16})[_-]{0,8}[^\W_][\w\u00b7-]{0,29}"
# Names of emoticons on Weibo, WeChat, QQ and Douyin; other words in brackets ([美], [注], [原文]) are text.
_EMOTICONS = """
表情 动画表情 图片 视频 语音 笑 哭 捂脸哭 害怕 抱歉 太棒了 比耶 拍手 大拇指 小红花 彩虹 咧嘴笑
眨眼 哭泣 心动 敬礼 拜托 卖萌 无聊 呆 跪 羞涩 怒火 哭笑 狗头 滑稽
微笑 嘻嘻 哈哈 哈哈哈 可爱 可怜 挖鼻 挖鼻屎 吃惊 害羞 挤眼 闭嘴 鄙视 爱你 泪 流泪 偷笑 亲亲 生病 太开心 白眼 右哼哼
左哼哼 嘘 衰 委屈 吐 哈欠 打哈欠 抱抱 怒 疑问 馋嘴 拜拜 思考 汗 困 睡 睡觉 钱 失望 酷 色 哼 鼓掌 晕 悲伤 抓狂 黑线
阴险 怒骂 互粉 心 伤心 猪头 熊猫 兔子 ok OK 耶 good NO no 赞 来 弱 草泥马 神马 囧 浮云 给力 围观 威武 奥特曼 礼物 钟
话筒 蜡烛 蛋糕 笑cry doge 喵喵 二哈 允悲 吃瓜 摊手 跪了 并不简单 中国赞 费解 憧憬 舔屏 污 笑而不语 坏笑 顶 傻眼
可怜巴巴 求关注 感冒 拳头 最差 握手 作揖 haha 落叶 绿丝带 沙尘暴 下雨 太阳 月亮 微风 雪 雪人 飞机 汽车 自行车 足球
手套 药 电影 音乐 围脖 帽子 照相机 干杯 咖啡 啤酒 西瓜 玫瑰 鲜花 凋谢 织 喜 發 福 锦鲤 给你小心心 打call 裂开 酸
苦涩 哇 加油 加油加油 抱拳 抱一抱 发呆 得意 大哭 尴尬 发怒 调皮 呲牙 龇牙 惊讶 难过 冷汗 愉快 傲慢 饥饿 惊恐 流汗
憨笑 悠闲 大兵 奋斗 咒骂 折磨 骷髅 敲打 再见 擦汗 抠鼻 糗大了 快哭了 吓 菜刀 乒乓 篮球 示爱 爱心 心碎 闪电 炸弹 瓢虫
便便 拥抱 强 胜利 勾引 差劲 爱情 飞吻 跳跳 发抖 怄火 转圈 磕头 回头 跳绳 挥手 激动 街舞 献吻 左太极 右太极 嘿哈 捂脸
奸笑 机智 皱眉 红包 旺柴 社会社会 翻白眼 666 让我看看 叹气 Emm 天啊 好的 破涕为笑 嘴唇 合十 庆祝 烟花 爆竹 强壮 无语
笑哭 笑脸 恐惧 脸红 小九九 囧囧 吐舌 比心 捂嘴笑 泣不成声 灵光一闪 绝望的凝视 拇指 送心 大笑 吐血 衰人 呆无辜 偷看
耍酷 尬笑 泪奔 黑脸 斜眼 加一 碰拳 凋零 悲催 汗颜 佩服 羞 吼 生气 开心 震惊 嫌弃 无奈 感动 惊喜 可惜 点赞 撒花
星星眼 辣眼睛 抱大腿 挑眉 彩虹屁 哆啦A梦微笑 米奇爱你 带着微博去旅行 最右 偷乐
"""
_CODE = "|".join(sorted(map(re.escape, set(_EMOTICONS.split())), key=len, reverse=True))
_SHORT_HOSTS = (
    r"t\.cn|url\.cn|dwz\.cn|suo\.im|sina\.lt|tb\.cn|m\.tb\.cn|v\.douyin\.com|b23\.tv|w\.url\.cn|u\.jd\.com|is\.gd|t\.co"
    r"|bit\.ly|goo\.gl|tinyurl\.com|ow\.ly|xhslink\.com|v\.kuaishou\.com|dwz\.win|163\.fm|126\.fm|rrd\.me|mr\.baidu\.com"
)
_NAME_ENDS = r"(?![\w\u00b7-]|[./][A-Za-z0-9])"
# Signs that forms are written with become half width to be found; those of sentences (，！？) are told apart.
_SIGNS = "@#/:[]_-.=&%+" + string.digits + string.ascii_letters
_HALF_WIDTH = {ord(sign) + 0xFEE0: sign for sign in _SIGNS}
# form: (what it looks like in half width, the groups of it that stay)
_FORMS = {
    # All that follows is what others wrote before, newest first.
    "reposts": (rf"//[ \t]*@{_NAME}(?:[ \t]*:|\s|$)[^\n]*", ()),
    "replies": (rf"(?:^|(?<=[\s，。！？!?]))(?:回复|回覆|回復)[ \t]*@{_NAME}[ \t]*:?[ \t]*", ()),
    # What is longer than a name is a sentence that begins with @.
    "mentions": (rf"(?<![A-Za-z0-9_.@/+-])@{_NAME}{_NAME_ENDS}[ \t]*", ()),
    "emoticons": (rf"\[(?:{_CODE})\]|\[([\u4e00-\u9fff]{{1,6}})\](?:\[\1\])+", ()),
    "links": (
        rf"(?:https?:/{{0,2}}|(?<![A-Za-z0-9_./@]))(?:{_SHORT_HOSTS})/[A-Za-z0-9_/?=&%.~+-]*[A-Za-z0-9_/=]"
        r"|L[^\W_][\w·-]{0,29}的微博视频|(?:展开|收起)全文[a-z]?$|O网页链接|(?<![\u4e00-\u9fff])(?:网页链接|網頁鏈接)(?![\u4e00-\u9fff])",
        (),
    ),
    "topics": (r"(?<![A-Za-z0-9_#&])#([^\W_][^#\n]{0,38}?)#", (1,)),
    "placeholders": (
        r"\A\s*(?:转发微博|轉發微博|转发|轉發|Repost|分享图片|分享圖片|分享视频|抱歉，此微博已被作者删除[^\n]*)[。.]?\s*\Z",
        (),
    ),
    "repeats": (r"([^\w\s])\1{3,}|([\u4e00-\u9fff])\2{4,}", (1, 1, 1, 2, 2, 2)),
}
FORMS = {form: (re.compile(pattern, re.MULTILINE), rest) for form, (pattern, rest) in _FORMS.items()}
# Repetition carries feeling, so it is reduced on request only.
DEFAULT = tuple(form for form in FORMS if form != "repeats")


@dataclass(frozen=True)
class SocialOptions:
    """Forms of comments.

    Attributes:
        remove: none, all, or some of reposts (`//@name: ...` to the line's end), replies (`回复@name:`), mentions,
            emoticons (`[哈哈]`), links (t.cn and other shorteners), topics (the signs of `#words#`), placeholders
            (转发微博), repeats (to three); default: all but repeats from --source comments, none from others.
    """

    remove: tuple[str, ...] = ()


def removed_forms(options: SocialOptions, social: bool) -> tuple[str, ...]:
    """The forms to remove, in order; social: whether the source is one of comments. Raises ConfigError."""
    check_some("social.remove", options.remove, FORMS)
    if not options.remove:
        return DEFAULT if social else ()
    return tuple(form for form in FORMS if form in options.remove or "all" in options.remove)


def clean_social(forms: Sequence[str], document: Document, context: CleanContext) -> Document:
    """The document without these forms in its text; each is counted in `context` by its name."""
    text = document.text
    half = text.translate(_HALF_WIDTH)
    for form in forms:
        left = _without(form, text, half, context)
        if left != text:
            text, half = left, left.translate(_HALF_WIDTH)
    if text == document.text:
        return document
    return replace(document, text=text.strip())


def _without(form: str, text: str, half: str, context: CleanContext) -> str:
    """`text` without a form that is found in `half`, the same in half width, character for character."""
    pattern, groups = FORMS[form]
    pieces, done = [], 0
    for match in pattern.finditer(half):
        left = "".join(text[slice(*match.span(group))] for group in groups if match[group])
        pieces += [text[done : match.start()], left]
        done = match.end()
        context.taken.add(form, done - match.start() - len(left))
    return "".join((*pieces, text[done:]))
