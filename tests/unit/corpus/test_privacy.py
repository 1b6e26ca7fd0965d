"""Private data: what is masked, and what only looks like it."""

import time

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.text import clean_text
from megadec.corpus.document import Document
from megadec.corpus.privacy import MASKS, PrivacyOptions, mask_document, masked_kinds, private_spans

ALL = tuple(MASKS)


def masked(text: str, *kinds: str) -> str:
    return mask_document(kinds or ALL, Document(id="1", source="s", text=text), CleanContext()).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("身份证11010519491231002X，请保密", "身份证【身份证号】，请保密"),
        ("证号：11010519491231002x。", "证号：【身份证号】。"),
        ("440524 18800101 0014", "【身份证号】"),
        ("老身份证 130503670401001 号", "老身份证 【身份证号】 号"),
        ("卡号6222 0212 3456 7890 128开户", "卡号【银行卡号】开户"),
        ("4111111111111111与Visa 4539 1488 0343 6467", "【银行卡号】与Visa 【银行卡号】"),
        ("运通 3782 822463 10005", "运通 【银行卡号】"),
        ("电话13800138000或13900139123", "电话【手机号】或【手机号】"),
        ("+86 138-0013-8000", "【手机号】"),
        ("(86)13800138001", "【手机号】"),
        ("0086-13800138001，", "【手机号】，"),
        ("tel:13800138001", "tel:【手机号】"),
        ("微信v13800138001", "微信v【手机号】"),
        ("139 0013 9000/138 0013 8001", "【手机号】/【手机号】"),
        ("1390 013 9001", "【手机号】"),
        ("香港+852 9123 4567，澳门+853 6612 3456", "香港【手机号】，澳门【手机号】"),
        ("台湾0912-345-678或+886 912 345 678", "台湾【手机号】或【手机号】"),
        ("热线010-62345678转8001。", "热线【电话号码】。"),
        ("（0571）87654321", "【电话号码】"),
        ("0571 8765 4321", "【电话号码】"),
        ("+86-10-62345678", "【电话号码】"),
        ("电话：62345678，传真6234-5678", "电话：【电话号码】，传真【电话号码】"),
        ("电话：02162345678", "电话：【电话号码】"),
        ("写信给li.ming+news@mail.example.com.cn。", "写信给【邮箱】。"),
        ("服务器在192.168.1.20:8080上", "服务器在【IP地址】:8080上"),
        ("ping 8.8.8.8", "ping 【IP地址】"),
        ("来自114.114.114.114的请求", "来自【IP地址】的请求"),
        ("http://36.7.85.201/a", "http://【IP地址】/a"),
        ("地址2001:db8:85a3::8a2e:370:7334，fe80::1", "地址【IP地址】，【IP地址】"),
        ("车牌京A12345、粤B·8K9Z7、沪AD12345", "车牌【车牌号】、【车牌号】、【车牌号】"),
        ("新A12B34号轿车", "【车牌号】号轿车"),
        ("护照号E12345678，EA1234567", "护照号【护照号】，【护照号】"),
        ("电话１３８００１３８００１", "电话【手机号】"),
    ],
)
def test_private_data_gives_way_to_the_mask_of_its_kind(text: str, expected: str) -> None:
    assert masked(clean_text(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "身份证110105194912310021",  # another check digit
        "编号910105194912310021234",
        "990105194912310020",
        "第110105194913310025号",  # a 13th month
        "130503671301001",
        "6222021234567890127",  # another check digit
        "订单号4539148803436467",
        "圆周率3.14159265358979323846，又0.13800138000",
        "1577808000000000和20191231235959123",
        "总额13800138000元，人口13912345678人，13800000000",
        "时间戳1664109102894",
        "ISBN 978-7-02-000220-7，ISBN 7020002207，ISSN 0255-1234",
        "1949-10-01 至 2019-10-01，2010-2020年，1999 2000 2001 2002",
        "订单13800138000，SKU13800138000A，a_13800138000",
        "https://example.com/u/13800138000?id=13900139000",
        "135 2345 6789 1234 5678",
        "图标logo@2x.png，git@github.com:OI-wiki/OI-wiki.git，@用户名",
        "版本1.2.3.4，v10.15.7.100，第3.2.1.20节，Chrome/100.20.30.40",
        "服务器版本号是1.2.3.4，IP库版本号：202.3.4.5，主机固件版本为 3.1.4.100，代理从v10.0.0.1升到 version 10.0.0.2",
        "10.2.0.0/16，127.0.0.1，0.0.0.0，255.255.255.0，300.1.1.256，1.2.3.4.5",
        "std::vector，12:30:45，00:1A:2B:3C:4D:5E，a::b，::1",
        "川A股大涨，鲁GDP增长，新A32000处理器，京ABCDEFG",
        "型号E12345678，编号62345678，电话20000000次，电话2345678.5",
        "2008年0503-20080508入住，0311-20191231",
        "88888888888888888888",
    ],
)
def test_what_only_looks_private_stays(text: str) -> None:
    assert masked(clean_text(text)) == clean_text(text)


def test_masks_are_counted_by_kind_and_the_characters_add_up() -> None:
    document = Document(id="1", source="s", title="寻人：13800138001", text="电话13900139123，a.b@qq.com，a.b@qq.com")
    context = CleanContext()
    result = mask_document(ALL, document, context)
    assert (result.title, result.text) == ("寻人：【手机号】", "电话【手机号】，【邮箱】，【邮箱】")
    assert context.taken.pieces == {"private mobile": 2, "private email": 2}
    lost = len(document.title + document.text) - len(result.title + result.text)
    assert context.taken.characters.total() == lost


def test_only_the_kinds_that_are_asked_for_are_masked_and_a_mask_is_not_masked_again() -> None:
    text = "电话13800138001，a@qq.com，京A12345"
    assert masked(text, "email") == "电话13800138001，【邮箱】，京A12345"
    assert masked(masked(text)) == masked(text)


def test_the_option_names_kinds_all_or_none() -> None:
    assert masked_kinds(PrivacyOptions()) == masked_kinds(PrivacyOptions(("none",))) == ()
    assert masked_kinds(PrivacyOptions(("all",))) == ALL
    assert masked_kinds(PrivacyOptions(("mobile", "email"))) == ("email", "mobile")
    with pytest.raises(ConfigError, match=r"privacy.mask='mobil'.*did you mean 'mobile'"):
        masked_kinds(PrivacyOptions(("mobil",)))
    with pytest.raises(ConfigError, match=r"privacy.mask='phone' is none of all, none, email, .*mobile, .*passport$"):
        masked_kinds(PrivacyOptions(("phone",)))
    with pytest.raises(ConfigError, match=r"privacy.mask=none email: none stands alone"):
        masked_kinds(PrivacyOptions(("none", "email")))


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "13800138001 ", "a@", "a.b@c.", "1.", "ab:", "(", "京A", "110105 ", "+86", "a_", "1-", "::"]
)
def test_time_grows_with_the_length_only(unit: str) -> None:
    def seconds(characters: int) -> float:
        text = unit * (characters // len(unit))
        start = time.process_time()
        private_spans(text, ALL)
        return time.process_time() - start

    short = min(seconds(10_000) for _ in range(3))
    assert seconds(80_000) < 8 * 3 * short + 0.1
