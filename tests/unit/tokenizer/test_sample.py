"""Which text a vocabulary is learned from: bounded, spread over all of it, the same in any order, never held out."""

import random
import tracemalloc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document, full_text
from megadec.corpus.vocabulary.sample import Portion, choose_texts, read_portion
from tests.support.documents import write_documents


@pytest.fixture(scope="module")
def documents(tiny_documents: list[Document]) -> list[Document]:
    """The beginnings of the tiny documents of two sources: 67 of each."""
    short = (replace(one, text=one.text[:200], variant="zh-Hans") for one in tiny_documents)
    return [one for one in short if one.source != "comments"]


@pytest.fixture(scope="module")
def file(documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("documents") / "invented.parquet", documents)


def written(path: Path, documents: Iterable[Document]) -> Path:
    write_documents(path, documents)
    return path


def chosen(*paths: Path, asked: Sequence[str] = (), held_out: float = 0.0, limit: int = 10_000_000) -> list[Portion]:
    return choose_texts(paths, list(map(read_portion, asked)), held_out_fraction=held_out, limit=limit)


@pytest.mark.parametrize(
    ("text", "portion"),
    [
        ("wiki=3", Portion("wiki", weight=3)),
        ("wiki-*/zh-Hans>zh-TW=2@3M", Portion("wiki-*", "zh-Hans", "zh-TW", 2, 3_000_000)),
        ("news=1@500K", Portion("news", limit=500_000)),
        ("news=0", Portion("news", weight=0)),
    ],
)
def test_a_sample_entry_reads_as_its_portion(text: str, portion: Portion) -> None:
    assert read_portion(text) == portion


@pytest.mark.parametrize("text", ["wiki", "wiki=", "wiki=-1", "wiki=1.5", "=3", "wiki=3@2G"])
def test_a_malformed_sample_entry_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="sample"):
        read_portion(text)


def test_held_out_documents_are_never_learned_from(file: Path, documents: list[Document]) -> None:
    texts = {text for portion in chosen(file, held_out=0.3) for text in portion.texts}
    assert texts == {text for text in map(full_text, documents) if not is_held_out(digest_of(text), 0.3)}
    assert 0.2 < 1 - len(texts) / len(documents) < 0.4


def test_a_portion_is_limited_and_the_same_in_any_order_and_any_files(
    file: Path, documents: list[Document], tmp_path: Path
) -> None:
    asked = ("news=1@5K", "wiki=0")
    [portion] = chosen(file, asked=asked)
    sizes = list(map(len, portion.texts))
    assert sum(sizes) - sizes[-1] < 5_000 <= sum(sizes)
    assert portion.found_characters == sum(len(full_text(one)) for one in documents if one.source == "news")
    mixed = random.Random(1).sample(documents, len(documents))
    parts = [written(tmp_path / f"{number}.parquet", mixed[number::3]) for number in range(3)]
    assert chosen(*parts, asked=asked) == [portion]


def test_memory_does_not_grow_with_the_input(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        names = (f"{number}的文本" for number in range(count))
        path = written(tmp_path / f"{count}.parquet", (Document(one, "s", one + "山" * 300) for one in names))
        tracemalloc.start()
        [portion] = chosen(path, limit=50_000)
        assert 50_000 <= sum(map(len, portion.texts)) < 51_000
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    # A chunk of documents is at hand beside what is chosen, whatever the number of documents.
    assert peak(3_000) < 1.3 * peak(1_000)


def test_a_conversion_comes_on_top_of_the_text_as_it_is(file: Path) -> None:
    portions = {portion.target: portion for portion in chosen(file, asked=("wiki/zh-Hans>zh-TW=2", "news=0"))}
    assert set(portions) == {"", "zh-TW"}
    assert len(portions[""].texts) == len(portions["zh-TW"].texts)
    assert "收音機" in "".join(portions["zh-TW"].texts)


def test_the_first_entry_that_fits_takes_a_text_and_a_source_of_no_entry_counts_once(file: Path) -> None:
    portions = chosen(file, asked=("n*=2",))
    assert [(portion.source, portion.weight) for portion in portions] == [("n*", 2), ("wiki", 1)]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (("newz=2",), "no such documents; .*did you mean 'news'"),
        (("news/zh-Hant=2",), "none of its documents is of that variant"),
        (("news=0", "wiki=0"), "sample leaves none of them"),
    ],
)
def test_a_sample_that_finds_nothing_is_refused(file: Path, asked: tuple[str, ...], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        chosen(file, asked=asked)
