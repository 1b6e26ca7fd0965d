"""Documents that hold the texts of evaluation sets."""

import random
from pathlib import Path

import pytest

from megadec.common.errors import InputError
from megadec.corpus.clean.text import clean_text
from megadec.corpus.dedup.contamination import EvaluationIndex, Held, build_index, set_names
from megadec.corpus.dedup.exact import letters_of

CHANCE = random.Random(0)
QUESTION = "马斯洛需要层次理论中的最低层次是（ ）哪一种需要"
TITLE = "倚天屠龙记十大创新"  # 9 characters
PASSAGE = "".join(chr(CHANCE.randrange(0x4E00, 0x4F00)) for _ in range(200))


def prose(characters: int) -> str:
    return "".join(chr(CHANCE.randrange(0x5000, 0x9000)) for _ in range(characters))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> EvaluationIndex:
    folder = tmp_path_factory.mktemp("sets")
    (folder / "dev.txt").write_text(f"{TITLE}\t3\n守株待兔\t1\n", encoding="utf-8")
    (folder / "exam.txt").write_text(f"{QUESTION}\n{PASSAGE}\n", encoding="utf-8")
    build_index([folder / "dev.txt", folder / "exam.txt"], folder / "index", 0.5)
    return EvaluationIndex(folder / "index")


def held(index: EvaluationIndex, text: str) -> str:
    plain = clean_text(text)
    found = index.find(plain, letters_of(plain))
    return found.item if found else ""


def test_a_document_that_holds_a_text_anywhere_is_found_whatever_its_punctuation_and_script(
    index: EvaluationIndex,
) -> None:
    for text in (QUESTION, QUESTION.replace("（ ）", "\n"), "馬斯洛需要層次理論中的最低層次是哪一種需要"):
        assert held(index, prose(50) + text + prose(500)) == QUESTION
    assert held(index, PASSAGE) == PASSAGE[:60]


def test_half_of_a_long_text_is_enough_and_a_quarter_is_not(index: EvaluationIndex) -> None:
    assert held(index, prose(100) + PASSAGE[40:160] + prose(100)) == PASSAGE[:60]
    assert held(index, prose(100) + PASSAGE[40:90] + prose(100)) == ""


def test_a_phrase_of_a_question_is_no_contamination(index: EvaluationIndex) -> None:
    assert held(index, "他提出马斯洛需要层次理论，" + prose(100)) == ""
    assert held(index, prose(1000)) == ""
    assert held(index, "") == ""


def test_a_short_text_counts_where_it_is_a_whole_line_and_a_shorter_one_where_it_is_all(index: EvaluationIndex) -> None:
    assert held(index, f"《{TITLE}》！\n{prose(300)}") == TITLE
    assert held(index, f"他看了{TITLE}之后\n{prose(300)}") == ""
    assert held(index, f"他讲了守株待兔的故事。\n守株待兔\n{prose(300)}") == ""
    assert held(index, "守株待兔。") == "守株待兔"


def test_the_set_is_named(index: EvaluationIndex) -> None:
    assert index.find(TITLE, TITLE) == Held("dev.txt", TITLE)
    assert index.find(QUESTION, letters_of(QUESTION)) == Held("exam.txt", QUESTION)


def test_the_fraction_is_that_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "exam.txt").write_text(PASSAGE, encoding="utf-8")
    build_index([tmp_path / "exam.txt"], tmp_path / "index", 0.9)
    strict = EvaluationIndex(tmp_path / "index")
    assert held(strict, prose(100) + PASSAGE[40:160]) == ""
    assert held(strict, prose(100) + PASSAGE[3:]) == PASSAGE[:60]


def test_sets_of_one_name_are_told_apart() -> None:
    assert set_names([Path("a/dev.txt"), Path("b.csv")]) == ["dev.txt", "b.csv"]
    assert set_names([Path("x/a/dev.txt"), Path("x/b/dev.txt")]) == ["a/dev.txt", "b/dev.txt"]


def test_a_set_without_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match=r"empty\.txt: no text of an evaluation set"):
        build_index([tmp_path / "empty.txt"], tmp_path / "index", 0.5)
