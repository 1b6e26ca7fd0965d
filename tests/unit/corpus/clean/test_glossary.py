"""Laws of the words that a page sets for a variant: NoteTA, `-{A| }-`, `-{H| }-`, `-{T| }-`, groups, titles."""

import time
from pathlib import Path

import pytest

from megadec.common.errors import InputError
from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.glossary import GROUPS_FILE, glossary_of, groups_of
from megadec.corpus.clean.web import clean_extracted
from megadec.corpus.clean.wiki.page import clean_wikitext
from megadec.corpus.document import Document


def converted(wikitext: str, variant: str, title: str = "题", groups: str = "") -> Document:
    context = CleanContext(variant, groups=groups)
    result = clean_wikitext(Document("1", "zhwiki", wikitext, title=title), context)
    assert isinstance(result, Document)
    assert context.converted
    return result


@pytest.mark.parametrize(
    ("wikitext", "variant", "text"),
    [
        ("{{NoteTA|1=zh-cn:软件;zh-tw:軟體}}好的软件", "zh-Hant", "好的軟體"),
        ("{{NoteTA|zh-cn:软件;zh-tw:軟體}}這個軟體，那個軟件", "zh-Hans", "这个软件，那个软件"),
        (
            "{{noteTA\n|T=zh-cn:甲;zh-tw:乙\n|G1=IT\n|1=zh-hans:布什;zh-hant:布希;\n}}布什用软件",
            "zh-Hant",
            "布希用軟體",
        ),
        ("{{NoteTA|1=新西兰=>zh-tw:紐西蘭}}新西兰人", "zh-Hant", "紐西蘭人"),
        ("-{H|zh-cn:宏;zh-tw:巨集}-宏的定义", "zh-Hant", "巨集的定義"),
        ("-{A|zh-cn:蓝屏;zh-tw:藍白當機}-，又蓝屏了", "zh-Hant", "藍白當機，又藍白當機了"),
        ("-{zh-hans:鼠标;zh-hant:滑鼠}-点击", "zh-Hant", "滑鼠點擊"),
        ("-{于}-右任与-{里}-", "zh-Hant", "于右任與里"),
        ("-{zh-hant|里}-面", "zh-Hant", "裏面"),  # for these variants: converted as the rest
        ("{{NoteTA|G1=IT}}軟體與記憶體", "zh-Hans", "软件与内存"),
        ("{{NoteTA|G1=Physics}}激光与软件", "zh-Hant", "雷射與軟件"),  # no group of words on software
        ("{{CGroup|IT}}{{CGroup/Movie}}好莱坞的软件", "zh-Hant", "好萊塢的軟體"),
        ("{{NoteTA|G1=Unheard of}}软件", "zh-Hant", "軟件"),
        ("{{NoteTA|1=zh-cn:里程;zh-tw:里程}}里程", "zh-Hant", "里程"),
    ],
)
def test_a_run_that_asks_for_a_variant_gets_the_words_that_the_page_sets(
    wikitext: str, variant: str, text: str
) -> None:
    assert converted(wikitext, variant).text == text


@pytest.mark.parametrize(
    ("wikitext", "title", "variant", "shown"),
    [
        ("{{NoteTA|T=zh-cn:软件题;zh-tw:軟體題}}正文", "软件", "zh-Hant", "軟體題"),
        ("-{T|zh-cn:软件题;zh-tw:軟體題}-正文", "软件", "zh-Hans", "软件题"),
        ("{{NoteTA|1=zh-cn:软件;zh-tw:軟體}}正文", "软件的历史", "zh-Hant", "軟體的歷史"),
        ("正文", "簡體條目", "zh-Hans", "简体条目"),
    ],
)
def test_the_title_is_the_one_that_the_page_sets_or_is_converted_like_its_text(
    wikitext: str, title: str, variant: str, shown: str
) -> None:
    assert converted(wikitext, variant, title).title == shown


def test_code_and_formulas_are_never_converted() -> None:
    text = converted("软件<code>x</code>：<math>软件</math>\n<pre>软件</pre>", "zh-Hant").text
    assert text == "軟件x：$软件$\n软件"


def test_what_an_extractor_left_is_converted_by_its_own_rules_too() -> None:
    left = Document("1", "s", "-{zh-cn:软件;zh-tw:軟體}-与-{里}-程很多的网络时代", title="网络")
    result = clean_extracted(left, CleanContext("zh-Hant"))
    assert isinstance(result, Document)
    assert (result.title, result.text) == ("網絡", "軟體與里程很多的網絡時代")


def test_converted_words_are_counted() -> None:
    context = CleanContext("zh-Hant")
    clean_wikitext(Document("1", "s", "{{NoteTA|1=zh-cn:甲;zh-tw:乙丙}}甲甲丁"), context)
    assert (context.taken.pieces["words converted"], context.taken.characters["words converted"]) == (2, -2)


def test_a_group_of_the_users_own_comes_before_ours(tmp_path: Path) -> None:
    own = tmp_path / "groups.txt"
    own.write_text("# my words\n[IT, mine]\nzh-cn:软件;zh-tw:軟仔;\n", encoding="utf-8")
    assert converted("{{NoteTA|G1=IT}}软件在内存", "zh-Hant", groups=str(own)).text == "軟仔在記憶體"
    own.write_text("软件 軟體\n", encoding="utf-8")
    groups_of.cache_clear()
    with pytest.raises(InputError, match=r"groups.txt:1: '软件 軟體' is neither"):
        groups_of(str(own))


def test_each_group_that_ships_has_a_word_for_both_variants_in_every_rule() -> None:
    groups = groups_of(str(GROUPS_FILE))
    assert {"it", "movie", "music", "games", "physics", "chemistry", "biology", "medicine", "math", "football",
            "country", "name", "military", "economics"} <= groups.keys()  # fmt: skip
    for rules in groups.values():
        assert all("zh-cn" in rule.words or rule.one_way for rule in rules)
        assert all(len(word) > 1 for rule in rules for word in rule.words.values() if "zh-cn" not in rule.words)


@pytest.mark.parametrize("piece", ["{{NoteTA|", "-{A|", "{{NoteTA|1=zh-cn:a;", "-{zh-cn:软件;zh-tw:軟體}-"])
def test_repeated_open_notes_take_no_more_than_a_moment(piece: str) -> None:
    started = time.process_time()
    glossary_of(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 2
