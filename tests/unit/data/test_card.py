"""A data card: what it says, where its folders are, and how a wrong one is refused."""

from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.data.card import CardSource, read_card, without_card


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return tmp_path / "cards" / "mix.yaml"


def written(card: Path, text: str) -> Path:
    card.parent.mkdir(exist_ok=True)
    card.write_text(text, encoding="utf-8")
    return card


def test_folders_are_found_from_the_card_and_addresses_stay(card: Path) -> None:
    text = """
sources:
  wiki: {shards: ../shards/wiki, weight: 3, epochs: 4, licences: [CC BY-SA 4.0, GFDL]}
  news: {shards: "s3://bucket/news/", weight: 0.5}
"""
    found = read_card(written(card, text))
    wiki = str(card.parent.parent / "shards" / "wiki")
    assert found.sources == {
        "wiki": CardSource(wiki, 3.0, 4.0, ("CC BY-SA 4.0", "GFDL")),
        "news": CardSource("s3://bucket/news", 0.5),
    }
    assert found.train == {wiki: 3.0, "s3://bucket/news": 0.5}
    assert found.max_epochs == {wiki: 4.0}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("source: {}", r"unknown key 'source' \(did you mean 'sources'"),
        ("sources:", "at least one source"),
        ("sources: [a]", "at least one source"),
        ("sources: {a: shards/a}", r"sources\.a='shards/a' is not a source"),
        ("sources: {a: {weight: 2}}", r"sources\.a: .*shards"),
        ("sources: {a: {shards: x, weigth: 2}}", r"sources\.a: unknown key 'weigth' \(did you mean 'weight'"),
        ("sources: {a: {shards: x, weight: -1}}", r"sources\.a: data weight -1"),
        ("sources: {a: {shards: x, weight: many}}", r"sources\.a: weight=many"),
        ("sources: {a: {shards: x, epochs: 0}}", r"sources\.a: epochs=0"),
        ("sources: {a: {shards: x, licences: MIT}}", r"sources\.a: .*licences"),
        ("sources: {a: {shards: x}, b: {shards: ./x/}}", r"sources\.b\.shards=\./x/ is the folder of a"),
        ("sources: {a: {shards: x}, a: {shards: y}}", "'a' stands twice"),
        ("sources: {a: {shards: x", "not a YAML file"),
    ],
)
def test_a_wrong_card_is_one_error_that_names_file_and_key(card: Path, text: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted) as error:
        read_card(written(card, text))
    assert str(card) in str(error.value)


def test_a_card_that_is_not_there_is_named(card: Path) -> None:
    with pytest.raises(ConfigError, match=r"mix\.yaml does not exist"):
        read_card(card)


def test_a_card_stands_in_the_place_of_a_mixture_and_not_beside_one(card: Path) -> None:
    written(card, "sources: {a: {shards: /x, epochs: 2}}")
    assert without_card({"card": str(card), "train": {}, "packing": "cut"}, "data.") == {
        "card": None,
        "train": {"/x": 1.0},
        "max_epochs": {"/x": 2.0},
        "packing": "cut",
    }
    with pytest.raises(ConfigError, match=r"data\.card=.* and data\.train were both given"):
        without_card({"card": str(card), "train": {"/y": 1.0}}, "data.")
