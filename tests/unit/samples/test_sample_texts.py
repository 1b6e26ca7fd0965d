"""Laws of the sample news, titles, comments and encodings."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from tests.support import PROJECT

SAMPLES = PROJECT / "samples"
NEWS = SAMPLES / "thucnews"
TITLES = NEWS / "titles"
CLASSES = ["体育", "娱乐", "家居", "教育", "时政", "财经", "科技", "社会", "股票", "游戏"]
HAN = re.compile(r"[\u3400-\u9fff]")


def items() -> list[Path]:
    return [path for path in sorted(NEWS.glob("*/*.txt")) if path.parent != TITLES]


def titles(name: str) -> list[tuple[str, int]]:
    rows = [line.split("\t") for line in (TITLES / name).read_text(encoding="utf-8").splitlines()]
    return [(title, int(label)) for title, label in rows]


def comments() -> list[dict[str, str]]:
    with (SAMPLES / "comments" / "comments.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_news_items_in_ten_classes() -> None:
    assert Counter(path.parent.name for path in items()) == dict.fromkeys(CLASSES, 16)
    assert all(path.stem.isdecimal() for path in items())
    assert len({path.stem for path in items()}) == 160


def test_news_item_is_a_title_and_indented_paragraphs() -> None:
    for path in items():
        title, *paragraphs = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        assert re.match("[^\\s　]", title), path
        assert len(paragraphs) >= 2, path
        assert all(re.match("　　[^　]", paragraph) for paragraph in paragraphs), path
        assert 150 <= len(HAN.findall("".join(paragraphs))) <= 400, path


def test_title_lists_are_balanced_and_share_no_title() -> None:
    assert (TITLES / "class.txt").read_text(encoding="utf-8").splitlines() == CLASSES
    train, dev = titles("train.txt"), titles("dev.txt")
    assert Counter(label for _, label in train) == dict.fromkeys(range(10), 100)
    assert Counter(label for _, label in dev) == dict.fromkeys(range(10), 5)
    assert len({title for title, _ in [*train, *dev]}) == 1050


def test_comments_are_many_different_and_of_both_labels() -> None:
    rows = comments()
    assert len({row["review"] for row in rows}) == len(rows) >= 150
    counts = Counter(row["label"] for row in rows)
    assert set(counts) == {"0", "1"}
    assert min(counts.values()) >= 70


def test_comments_hold_what_a_cleaner_must_survive() -> None:
    every = "\0".join(row["review"] for row in comments())
    emoji, thrice, telephone = r"[\U0001F300-\U0001FAFF]", r"([！？。])\1\1", r"(?<!\d)1\d{10}(?!\d)"
    for pattern in ('"', ",", r"\n", emoji, thrice, telephone, r"\w+@example\.(com|org)"):
        assert re.search(pattern, every), pattern


def test_gb18030_sample_is_no_other_encoding() -> None:
    data = (SAMPLES / "encodings" / "gb18030.txt").read_bytes()
    assert "𠮷" in data.decode("gb18030")
    for other in ("utf-8", "gbk"):
        with pytest.raises(UnicodeDecodeError):
            data.decode(other)


def test_corpus_is_large_enough_for_a_loss_to_fall() -> None:
    files = [path for suffix in ("wiki", "txt", "csv") for path in SAMPLES.rglob(f"*.{suffix}")]
    text = "".join(path.read_text(encoding="utf-8") for path in files if path.parent.name != "encodings")
    assert len(HAN.findall(text)) >= 90_000
