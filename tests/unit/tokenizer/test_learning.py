"""Learning a vocabulary: which text, how it is cut, and what a model made of invented text keeps its promises about."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.document import Document
from megadec.corpus.vocabulary.learn import (
    Portion,
    VocabularyOptions,
    choose_characters,
    choose_texts,
    learn_vocabulary,
    read_portion,
    segments_of,
)
from megadec.corpus.vocabulary.report_card import measure, read_groups
from megadec.corpus.vocabulary.train import main
from tests.support.documents import write_documents


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory, tiny_documents: list[Document]) -> Path:
    """The beginnings of the tiny documents of two sources: 67 of each."""
    path = tmp_path_factory.mktemp("documents") / "invented.parquet"
    short = (replace(one, text=one.text[:200], variant="zh-Hans") for one in tiny_documents)
    write_documents(path, (one for one in short if one.source != "comments"))
    return path


def options(documents: Path, **changes: object) -> VocabularyOptions:
    values: dict[str, object] = {"input": (documents,), "vocab_size": 512, "character_coverage": 1.0, "workers": 1}
    return VocabularyOptions(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("cross", [True, False])
def test_cut_segments_joined_are_the_text(cross: bool) -> None:
    texts = [
        "",
        "\n",
        "一二三。\n\n四五",
        "没有标点" * 100,
        "长句，" * 30 + "。" + "又一句" * 20 + "\n末行",
        "a b. " * 50,
    ]
    for text in texts:
        segments = list(segments_of(text, 40, cross, Counter()))
        assert "".join(segments) == text
        assert all(0 < len(segment) <= 40 for segment in segments)


def test_long_lines_are_cut_at_sentence_ends_and_counted() -> None:
    counts: Counter[str] = Counter()
    segments = list(segments_of("这是一句话。" * 10 + "\n" + "字" * 45 + "\n短", 20, True, counts))
    assert segments[:3] == ["这是一句话。" * 3] * 3
    assert counts == {"long_lines_cut": 2, "cut_inside_a_sentence": 2}


def test_without_crossing_no_segment_mixes_punctuation_and_letters() -> None:
    assert list(segments_of("他说：“好。”走", 100, False, Counter())) == ["他说", "：“", "好", "。”", "走"]


def test_frequent_characters_of_every_share_are_chosen_however_small_it_is() -> None:
    large = Portion("news", texts=["常用字" * 10_000 + "罕"])
    small = Portion("wiki", texts=["体" * 10])
    chosen = choose_characters([large, small], coverage=0.999)
    assert {"常", "用", "字", "体", "\n", "~", "\u2581"} <= chosen
    assert "罕" not in chosen
    assert " " not in chosen


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


def test_held_out_documents_are_never_learned_from(documents: Path) -> None:
    everything, kept = (
        {text for share in choose_texts(options(documents, held_out_fraction=fraction), []) for text in share.texts}
        for fraction in (0.0, 0.3)
    )
    assert kept < everything
    assert 0.2 < 1 - len(kept) / len(everything) < 0.4


def test_a_share_is_limited_spread_over_its_source_and_the_same_each_time(documents: Path) -> None:
    limited = options(documents, held_out_fraction=0.0)
    shares = choose_texts(limited, [read_portion("news=1@5K"), read_portion("wiki=0")])
    assert [share.source for share in shares] == ["news"]
    size = sum(map(len, shares[0].texts))
    assert 3_000 < size < 7_000
    assert shares == choose_texts(limited, [read_portion("news=1@5K"), read_portion("wiki=0")])


def test_a_conversion_comes_on_top_of_the_text_as_it_is(documents: Path) -> None:
    portions = [read_portion("wiki/zh-Hans>zh-TW=2"), read_portion("news=0")]
    shares = {share.target: share for share in choose_texts(options(documents), portions)}
    assert set(shares) == {"", "zh-TW"}
    assert len(shares[""].texts) == len(shares["zh-TW"].texts)
    assert "收音機" in "".join(shares["zh-TW"].texts)


def test_a_sample_of_an_unknown_source_names_the_nearest(documents: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'news'"):
        learn_vocabulary(options(documents, sample=("newz=2",)))


def test_too_little_text_for_the_vocabulary_is_one_clear_error(documents: Path) -> None:
    with pytest.raises(ConfigError, match=r"vocab_size=32000.*too little"):
        learn_vocabulary(options(documents, vocab_size=32_000))


@pytest.mark.parametrize(
    "wrong", [{"vocab_size": 100}, {"character_coverage": 0.1}, {"max_piece_characters": 0}, {"held_out_fraction": 1.0}]
)
def test_a_value_out_of_its_range_is_named(documents: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        learn_vocabulary(options(documents, **wrong))


def test_groups_need_a_name_and_sources() -> None:
    assert read_groups(["wiki=a+b"]) == {"wiki": ["a", "b"]}
    with pytest.raises(ConfigError, match="groups"):
        read_groups(["wiki"])


def test_the_command_writes_a_lossless_model_with_its_record_and_report(documents: Path, tmp_path: Path) -> None:
    output = tmp_path / "small"
    arguments = ["--input", str(documents), "--output", str(output), "--vocab-size", "512", "--sample", "wiki=2"]
    arguments += ["--groups", "both=wiki+news", "--workers", "1"]
    main(arguments)
    assert {path.name for path in output.iterdir()} == {"README.md", "report.json", "tokenizer.model", "training.json"}
    tokenizer = Tokenizer.load(output)
    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    assert record["tokenizer"]["sha256"] == tokenizer.sha256
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["documents"] == report["lossless"] == 134
    assert report["kinds"]["both (together)"]["all"]["documents"] == 134
    assert 0 < report["kinds"]["all"]["held_out"]["documents"] < 100
    assert "python tokenizer/train.py" in (output / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already"):
        main(arguments)


def test_a_report_counts_texts_that_do_not_come_back(documents: Path, tmp_path: Path) -> None:
    model, _ = learn_vocabulary(options(documents))
    (tmp_path / "tokenizer.model").write_bytes(model)
    odd = tmp_path / "odd.parquet"
    # sentencepiece's own sign for a blank is the one character that it cannot give back.
    write_documents(odd, [Document("good", "s", "山谷"), Document("bad", "s", "山\u2581谷")])
    report = measure(tmp_path / "tokenizer.model", [odd], 0.0, 1, {})
    assert (report["documents"], report["lossless"], report["not_lossless"]) == (2, 1, ["s: bad"])
