"""Forms of Weibo: what is taken out of comments, what stays, and what is counted."""

import time

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.social import DEFAULT, FORMS, SocialOptions, clean_social, removed_forms
from megadec.corpus.document import Document


def plain(text: str, *forms: str) -> str:
    return clean_social(forms or DEFAULT, Document(id="1", source="s", text=text), CleanContext()).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("说得好！//@张三:同意//@李四_1: 原话", "说得好！"),
        ("好雨 // @北京-发布：今天有雨", "好雨"),
        ("回复@小明:谢谢你", "谢谢你"),
        ("好的。回复 @Ann_01： 明天见", "好的。明天见"),
        ("谢谢@人民日报 的报道，@新华社", "谢谢的报道，"),
        ("太好笑了[哈哈][哈哈][doge]", "太好笑了"),
        ("[泪]走了[允悲]", "走了"),
        ("这是新的[贴图表情][贴图表情]", "这是新的"),
        ("看这里http://t.cn/RqabcD1，很好", "看这里，很好"),
        ("详见：http:t.cn/zjZQj5x蒙牛", "详见：蒙牛"),
        ("看球http://t.cn/A6abc L球迷_01的微博视频", "看球"),
        ("说来话长 ...展开全文c", "说来话长 ..."),
        ("视频 t.cn/A6abc O网页链接", "视频"),
        ("#北京天气#今天很热", "北京天气今天很热"),
        ("转发微博", ""),
        ("轉發微博。", ""),
        ("确实好吃！／／＠老王：转发微博", "确实好吃！"),
        ("＃今天吃什么＃吃面", "今天吃什么吃面"),
        ("好的。回复＠小明：明天见", "好的。明天见"),
        ("＠京东客服，快点", "，快点"),
        ("好［哈哈］［ｄｏｇｅ］", "好"),
        ("看ｔ．ｃｎ／Ａ６ａｂｃ，Ｏ网页链接", "看，"),
        ("试试吧@太阳爱鸟语也爱爽宝贝儿", "试试吧"),
        ("早@_C93 早，@__小白__😊", "早早，😊"),
        ("谢谢@北京市朝阳区人民法院微博号啊，好", "谢谢，好"),
        ("听@a1234567890123456789012345678_说", "听@a1234567890123456789012345678_说"),
        ("Ａ，［美］＠＿＠＃＿＃（好）", "Ａ，［美］＠＿＠＃＿＃（好）"),
    ],
)
def test_a_form_of_comments_goes_and_the_words_stay(text: str, expected: str) -> None:
    assert plain(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "[美]海明威《老人与海》[注]，a[i]与[1]",
        "邮箱a@qq.com，用 @ 表示",
        "C#和F#都是语言，3#楼和5#楼，&#32463;理&#3247;",
        "打开网页链接就能看到，https://www.example.com/t.cn/a",
        "@客服请你们尽快处理一下我的退款问题好吗",
        "今天转发微博的人很多",
        "累死了#_#和#^_^#，忘不了@_@",
        "哈哈哈哈哈哈！！！！！！",
        "注释//这里没有人",
    ],
)
def test_what_only_looks_like_a_form_stays(text: str) -> None:
    assert plain(text) == text


def test_repeats_are_reduced_where_it_is_asked_for() -> None:
    assert plain("哈哈哈哈哈哈！！！！！！好的好的👍👍👍👍👍", "repeats") == "哈哈哈！！！好的好的👍👍👍"


def test_each_form_is_counted_by_its_name_and_the_characters_add_up() -> None:
    context, text = CleanContext(), "#话题#回来了[哈哈][泪]//@张三:同意"
    left = clean_social(DEFAULT, Document(id="1", source="s", text=text), context).text
    assert left == "话题回来了"
    assert context.taken.pieces == {"topics": 1, "emoticons": 2, "reposts": 1}
    assert context.taken.characters.total() == len(text) - len(left)
    wide, text = CleanContext(), "＃话题＃回来了［哈哈］［泪］／／＠张三：同意"
    assert clean_social(DEFAULT, Document(id="1", source="s", text=text), wide).text == left
    assert wide.taken == context.taken


def test_comments_lose_their_forms_and_other_sources_only_what_is_asked_for() -> None:
    assert removed_forms(SocialOptions(), social=True) == DEFAULT
    assert removed_forms(SocialOptions(), social=False) == ()
    assert removed_forms(SocialOptions(("none",)), social=True) == ()
    assert removed_forms(SocialOptions(("all",)), social=False) == tuple(FORMS)
    assert removed_forms(SocialOptions(("links", "reposts")), social=False) == ("reposts", "links")
    with pytest.raises(ConfigError, match=r"social.remove='link'.*did you mean 'links'"):
        removed_forms(SocialOptions(("link",)), social=True)
    with pytest.raises(ConfigError, match=r"social.remove=all none: all stands alone"):
        removed_forms(SocialOptions(("all", "none")), social=True)


@pytest.mark.parametrize(
    "unit", ["@a", "#a", "//", "[哈", "[哈哈]", "http://", " ", "回复@a", "t.cn/", "a", "哈", "＠ａ", "@_", "@a1·"]
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        start = time.process_time()
        plain(text, *FORMS)
        return time.process_time() - start

    short = min(seconds(10_000) for _ in range(3))
    assert seconds(80_000) < 8 * 3 * short + 0.1
