"""Which languages a text is written in, by its characters."""

import pytest

from megadec.corpus.quality.language import language_counts
from megadec.corpus.quality.rules import RULES, FilterOptions, choose_rules, drop_reason

CHINESE = "清晨的雾从河面上升起来，船夫把缆绳解开，慢慢向对岸划去。岸边的集市已经热闹了。"
JAPANESE = (
    "東京は日本の首都であり、世界でも最大級の都市の一つです。朝の電車はとても混んでいて、"
    "多くの人が立ったまま新聞を読んでいます。春になると公園の桜が咲き、人々でにぎわいます。"
)
KOREAN = "서울은 대한민국의 수도이며 가장 큰 도시입니다. 많은 사람들이 지하철을 타고 출근합니다. " * 2
ENGLISH = "The ferry leaves at seven in the morning, and most of the people who take it work on the other side. "
GERMAN = "Die Fähre fährt morgens um sieben ab, und fast alle Fahrgäste arbeiten drüben auf der anderen Seite. "
CLASSICAL = "學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？人不知而不慍，不亦君子乎？其為人也孝弟，而好犯上者，鮮矣。"


def share(text: str, language: str) -> float:
    counts = language_counts(text)
    return counts[language] / counts.total()


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (CHINESE, "zh-Hans"),
        (CLASSICAL, "zh-Hant"),
        (JAPANESE, "ja"),
        (KOREAN, "ko"),
        (ENGLISH, "en"),
        (GERMAN, "other"),
    ],
)
def test_a_text_of_one_language_is_that_language(text: str, language: str) -> None:
    assert share(text, language) > 0.95


def test_every_letter_is_counted_once() -> None:
    mixed = CHINESE + JAPANESE + KOREAN + ENGLISH + GERMAN + "Привет мир의の"
    letters = sum(character.isalpha() or character in "〇々" for character in mixed)
    assert language_counts(mixed).total() == letters


def test_names_in_latin_among_chinese_are_counted_as_english() -> None:
    assert language_counts("苹果发布了 iPhone 与 MacBook Pro。") == {"zh-Hans": 6, "en": 16}


def test_a_japanese_page_is_dropped_and_a_chinese_one_that_quotes_japanese_stays() -> None:
    article = RULES["article"]
    assert drop_reason(JAPANESE, article) == "japanese"
    assert drop_reason(KOREAN, article) == "korean"
    assert drop_reason(CLASSICAL, article) == ""
    quoting = f"{CHINESE}他在墙上读到这样一句话：「春になると公園の桜が咲く」，便抄了下来。{CHINESE[:20]}"
    assert drop_reason(quoting, article) == ""


@pytest.mark.parametrize("text", ["鮮の每日坚果大礼包", "优の良品旗舰店的猪肉脯很好吃", "《ドラえもん》主题曲很好听"])
def test_a_lone_no_or_a_quoted_name_makes_no_text_japanese(text: str) -> None:
    assert drop_reason(text, RULES["short"]) == ""


def test_the_share_of_chinese_can_be_asked_for() -> None:
    rules = choose_rules(FilterOptions(min_chinese_fraction=0.6, max_japanese_fraction=1.0), "article")
    assert drop_reason(CHINESE + ENGLISH, rules) == "low_chinese"
    assert drop_reason(JAPANESE, rules) == "low_chinese"
    assert drop_reason(CHINESE * 2, choose_rules(FilterOptions(rules="none", min_chinese_fraction=0.6), "")) == ""


def test_a_long_word_takes_time_in_proportion_to_its_length() -> None:
    assert language_counts("a" * 1_000_000 + "。" + "b" * 41)["en"] == 1_000_041
