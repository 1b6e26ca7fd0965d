"""Learning a vocabulary: how text is cut, and what a model made of invented text keeps its promises about."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.dedup.exact import digest_of, is_held_out
from megadec.corpus.document import Document
from megadec.corpus.vocabulary.learn import (
    VocabularyOptions,
    choose_characters,
    learn_vocabulary,
    segments_of,
)
from megadec.corpus.vocabulary.report_card import measure, read_groups
from megadec.corpus.vocabulary.sample import Portion
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
    beside = documents.with_suffix(".dropped.parquet")  # as `prepare` leaves it; a shell's pattern names it too
    beside.touch()
    arguments = ["--input", str(documents), str(beside)]
    arguments += ["--output", str(output), "--vocab-size", "512", "--sample", "wiki=2"]
    arguments += ["--groups", "both=wiki+news", "--workers", "1"]
    main(arguments)
    assert {path.name for path in output.iterdir()} == {"README.md", "report.json", "tokenizer.model", "training.json"}
    tokenizer = Tokenizer.load(output)
    record = json.loads((output / "training.json").read_text(encoding="utf-8"))
    assert record["tokenizer"]["sha256"] == tokenizer.sha256
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert report["documents"] == report["lossless"] == 134
    assert report["kinds"]["both (together)"]["all"]["documents"] == 134
    rates = [one["tokens_per_word"] for one in report["fertility"]["sources"].values()]
    assert len(rates) == 2
    assert all(rate >= 1 for rate in rates)
    assert 0 < report["kinds"]["all"]["held_out"]["documents"] < 100
    assert "python tokenizer/train.py" in (output / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="exists already"):
        main(arguments)


def test_both_ways_to_learn_give_back_every_text_and_keep_digits_single(documents: Path, tmp_path: Path) -> None:
    for kind in ("bpe", "unigram"):
        (tmp_path / kind).mkdir()
        path = tmp_path / kind / "tokenizer.model"
        path.write_bytes(learn_vocabulary(options(documents, model=kind))[0])
        tokenizer = Tokenizer.load(path)
        assert tokenizer.vocabulary_size == 512
        for text in ("2024年 12月\n\n  山谷里的\t𠮷野家", " 前后 "):
            assert tokenizer.decode(tokenizer.encode(text)) == text
        assert not [piece for piece in tokenizer.pieces if len(piece) > 1 and piece.isdigit()]


def test_a_comparison_stands_in_the_report_card_and_says_which_size_cannot_be(tmp_path: Path) -> None:
    output = tmp_path / "small"
    chance = random.Random(5)
    words = ["".join(chr(chance.randrange(0x4E00, 0x4E40)) for _ in range(chance.choice((2, 3)))) for _ in range(800)]
    texts = ("，".join(chance.choices(words, k=60)) for _ in range(300))
    # Of this source nothing is held out, and a group names it all the same.
    few = next(text for text in map(str, range(100)) if not is_held_out(digest_of(text), 0.2))
    documents = [Document("few", "few", few), *(Document(str(n), "s", text) for n, text in enumerate(texts))]
    write_documents(tmp_path / "words.parquet", documents)
    arguments = ["--input", str(tmp_path / "words.parquet"), "--output", str(output), "--vocab-size", "512"]
    arguments += ["--groups", "both=s+few"]
    main([*arguments, "--workers", "1", "--held_out_fraction", "0.2", "--compare", "512", "600", "32000"])
    report = json.loads((output / "report.json").read_text(encoding="utf-8"))
    found = {(one["model"], one["vocabulary_size"]): one for one in report["comparison"]}
    assert found.keys() == {(kind, size) for kind in ("bpe", "unigram") for size in (512, 600, 32_000)}
    whole = report["kinds"]["all"]["held_out"]
    for (_, size), one in found.items():
        assert ("impossible" in one) == (size == 32_000)
        if size != 32_000:
            same = ("documents", "characters", "lossless")
            assert [one["kinds"]["all"][key] for key in same] == [whole[key] for key in same]
            assert one["kinds"]["both (together)"] == one["kinds"]["all"]
    assert found["bpe", 600]["kinds"]["all"]["tokens"] < found["bpe", 512]["kinds"]["all"]["tokens"]
    assert "bpe 600 | unigram 600" in (output / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="compare"):
        main([*arguments, "--overwrite", "true", "--held_out_fraction", "0", "--compare", "512"])


def test_a_report_counts_texts_that_do_not_come_back(documents: Path, tmp_path: Path) -> None:
    model, _ = learn_vocabulary(options(documents))
    (tmp_path / "tokenizer.model").write_bytes(model)
    odd = tmp_path / "odd.parquet"
    # sentencepiece's own sign for a blank is the one character that it cannot give back.
    write_documents(odd, [Document("good", "s", "山谷"), Document("bad", "s", "山\u2581谷")])
    report = measure(tmp_path / "tokenizer.model", [odd], 0.0, 1, {})
    assert (report["documents"], report["lossless"], report["not_lossless"]) == (2, 1, ["s: bad"])
