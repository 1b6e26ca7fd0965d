"""Tells lines of menus, notices and calls to action from prose by their form.

A topic is no boilerplate: a page about 二维码, Cookie or 版权 speaks of them in sentences. Boilerplate addresses the
reader (点击查看, 扫描下方二维码), stands in rows (首页 | 登录 | 注册) or is a formula with its number (京ICP备12345号).
"""

import re

# A line is boilerplate if this share of it is.
LEAST_FRACTION = 1 / 3

_REST = r"[^，。！？；,;!?|｜\n]{0,20}"
_NOTICES = "|".join((
    r"版权所有" + _REST,
    r"未经[^，。\n]{0,12}(?:授权|许可|允许|同意)，?[^，。\n]{0,6}(?:转载|复制|摘编|镜像|引用)" + _REST,
    r"(?:如需|欢迎)?转载[^，。\n]{0,6}(?:注明|联系|保留)" + _REST,
    r"责任编辑\s*[:：]" + _REST,
    r"[\u4e00-\u9fff]?ICP[备证]\s*(?:案号)?[:：]?\s*\d" + _REST,
    r"[\u4e00-\u9fff]公网安备\s*\d" + _REST,
    r"(?:Copyright\s*)?(?:©|\(C\))\s*(?:\d{4}|[A-Z])" + _REST,
    r"Copyright\s+\d{4}" + _REST,
    r"All Rights Reserved(?=[\s.。]*$)",
))  # fmt: skip
_CALLS = "|".join((
    r"(?:请|您?需要?)先?(?:登[录陆]|注册)" + _REST,
    r"(?:请|可以?)?点[击按](?:进入|查看|下载|这里|此处|阅读|关注|[上下]方|图片|蓝字)" + _REST,
    r"(?:扫一扫|扫描|长按|识别)(?:[上下左右文图本]|页面)" + _REST,
    r"(?:扫一扫|扫描|长按|识别)二维码，?(?:关注|添加|下载|加入|进群|联系)" + _REST,
    r"(?:请|欢迎)?关注(?:我们|本[站刊报]|微信|官方|公众)" + _REST,
    r"[上下]一[页篇章条]\s*[:：]" + _REST,
    r"分享(?:到|至)\s*[:：]?" + _REST,
    r"(?:本[网站]站?|我们)[^，。\n]{0,6}使用[^，。\n]{0,4}cookies?" + _REST,
    r"(?:请|您的浏览器)[^，。\n]{0,12}(?:启用|开启|打开|不支持)[^，。\n]{0,6}(?:javascript|脚本|框架)" + _REST,
    r"(?:please )?enable javascript" + _REST,
))  # fmt: skip
# Items of a row, whole.
_ITEMS = (
    r"(?:首页|返回(?:首页|顶部|列表|目录|上页)|设为首页|加入收藏|收藏本[站页]|登[录陆]|注册|[上下]一[页篇章条]|关于我们|联系我们|"
    r"网站地图|帮助中心|服务条款|隐私政策|免责声明|友情链接|打印(?:本页)?|关闭(?:窗口)?|举报|投诉|微博|微信|朋友圈|QQ空间|手机版|"
    r"客户端|更多>*)(?=[\s，。,|｜/·>\]】]|$)"
)
_BOILERPLATE = re.compile(
    rf"(?:^|(?<=[\s，。！？；：、,|｜/·>\[【(（]))(?:{_NOTICES}|{_CALLS}|{_ITEMS})", re.IGNORECASE
)


def is_boilerplate(line: str) -> bool:
    """Whether at least a third of a line's characters are notices, calls to the reader or items of a menu."""
    covered = sum(match.end() - match.start() for match in _BOILERPLATE.finditer(line))
    return covered > 0 and covered >= LEAST_FRACTION * len(line)
