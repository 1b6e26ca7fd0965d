"""Boilerplate is told by its form: a topic named in sentences is none."""

import time

import pytest

from megadec.corpus.quality.boilerplate import is_boilerplate


@pytest.mark.parametrize(
    "line",
    [
        "版权所有，未经授权不得转载。",
        "点击进入下一页，设为首页，加入收藏。",
        "扫一扫下面的二维码，关注我们的公众号，每天都有新的内容。",
        "京ICP备12345678号 京公网安备 11010502030000号",
        "Copyright © 2008-2020 Example.com All Rights Reserved",
        "首页 | 登录 | 注册 | 关于我们 | 联系我们",
        "分享到：微信 微博 朋友圈 QQ空间",
        "您的浏览器不支持JavaScript，请开启后重试。",
        "责任编辑：王小明",
        "上一篇：春天的公园",
        "本网站使用Cookie，继续浏览即表示同意。",
        "请登录后查看全文。",
    ],
)
def test_notices_calls_to_the_reader_and_menus_are_boilerplate(line: str) -> None:
    assert is_boilerplate(line)


@pytest.mark.parametrize(
    "line",
    [
        "JavaScript（通常缩写为JS）是一门高级编程语言，由网景公司的工程师于1995年设计。",
        "二维码有纠错能力，即使一部分损毁也能还原，二维码的容量也比条形码大得多。",
        "Cookie分为内存Cookie和硬盘Cookie，前者由浏览器维护，保存在内存中。",
        "网站可以使用Cookie记住访客的偏好。",
        "ICP备案是中国大陆对网站实行的一种登记制度。",
        "版权所有，翻印必究，是书籍版权页上常见的一句声明，其法律效力因国家而异。",
        "扫描二维码之后，手机会打开一个网页，用户在网页上付款。",
        "责任编辑是出版社里对书稿负责的编辑。",
        "微信和微博是中国使用人数最多的社交软件。",
        "用户需要先登录系统，才能借阅馆内的图书，这与从前凭证件借阅的办法不同。",
        "在页面下方点击查看按钮后，程序会把结果列成一张表格，供研究人员逐项核对与分析。",
        "All rights reserved是一句法律用语，原先是《布宜诺斯艾利斯公约》对作品提出的要求。",
    ],
)
def test_sentences_about_such_things_are_prose(line: str) -> None:
    assert not is_boilerplate(line)


@pytest.mark.parametrize("piece", ["版权所有", "未经", "请", "© ", "本网", " ", "分享到 "])
def test_a_long_line_takes_no_more_than_a_moment(piece: str) -> None:
    started = time.process_time()
    is_boilerplate(piece * (100_000 // len(piece)))
    assert time.process_time() - started < 1
