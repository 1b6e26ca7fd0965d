"""Text that was decoded wrongly before: repaired where all bytes are there, else left out with a reason."""

import pytest

from megadec.corpus.clean.context import CleanContext
from megadec.corpus.clean.mojibake import repair_mojibake
from megadec.corpus.document import Document

SIMPLIFIED = "今天的新闻说，城市里的公园在春天开放了，许多市民带着孩子前去游玩。"
TRADITIONAL = "許多市民帶著孩子前去遊玩，湖邊的花開得正好，大家拍照留念。"


def repaired(text: str, title: str = "") -> Document | str:
    return repair_mojibake(Document("1", "s", text, title), CleanContext())


@pytest.mark.parametrize(
    ("text", "was", "read_as"),
    [
        ("新闻里的公园春天", "utf-8", "gb18030"),
        (SIMPLIFIED, "utf-8", "latin-1"),
        (SIMPLIFIED, "gb18030", "latin-1"),
        (SIMPLIFIED, "gb18030", "cp1252"),
        (TRADITIONAL, "big5hkscs", "gb18030"),
        (TRADITIONAL, "big5hkscs", "latin-1"),
    ],
)
def test_a_line_in_a_wrong_encoding_is_repaired_beside_right_ones(text: str, was: str, read_as: str) -> None:
    wrong = text.encode(was).decode(read_as)
    assert repaired(wrong) == Document("1", "s", text)
    assert repaired(f"{SIMPLIFIED}\r\n{wrong}\n", wrong) == Document("1", "s", f"{SIMPLIFIED}\r\n{text}\n", text)


def test_a_text_of_which_bytes_were_lost_is_dropped_and_a_line_of_a_long_one_left_out() -> None:
    lost = SIMPLIFIED.encode().decode("gbk", "replace")
    assert repaired(lost) == "mojibake"
    context = CleanContext()
    text = f"{SIMPLIFIED}\n" * 40
    document = repair_mojibake(Document("1", "s", text + lost), context)
    assert document == Document("1", "s", text)
    assert context.taken.characters["mojibake"] == len(lost)


@pytest.mark.parametrize(
    "text",
    [
        "饕餮魑魅魍魉",
        "これはテストです",
        "한국어 텍스트",
        "Café résumé naïve",
        "鳜鱼 鲈鱼 鲢鱼 鳙鱼",
        "αβγδε",
        "Привет, мир",
        SIMPLIFIED,
    ],
)
def test_rare_characters_and_other_languages_are_no_mistake(text: str) -> None:
    assert repaired(text, text) == Document("1", "s", text, text)
