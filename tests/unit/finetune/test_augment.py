"""Changed copies of labelled texts: as many as asked for, of the same label, the same for one seed, never of what
measures."""

import json
import random

import pytest

from megadec.cli import run_verb
from megadec.common.errors import ConfigError, InputError
from megadec.corpus.words.segment import SegmentOptions
from megadec.finetune.augment import AugmentOptions, augmented, mix
from megadec.finetune.examples import LabelledOptions, read_sets
from tests.support.titles import WORDS, titles

NAMES = tuple(WORDS)
TEXTS = [(title, NAMES[label]) for title, label in titles(60, 1)]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """地图 and 星星 are near 木匠; no other word of the titles has a vector."""
    path = tmp_path_factory.mktemp("vectors") / "v.txt"
    path.write_text("5 2\n木匠 1 0\n地图 0.9 0.1\n星星 0.8 0.1\n某某 0 1\n别的 -1 0\n", encoding="utf-8")
    return str(path)


def words_of(text):
    return SegmentOptions().open_segmenter().cut(text)


def test_one_seed_gives_the_same_copies_and_another_seed_others(vectors):
    options = AugmentOptions(copies=3, mixing=0.5, synonyms=0.5, swap=0.3, deletion=0.2, vectors=vectors)
    first, counts = augmented(TEXTS, options, 0)
    assert augmented(TEXTS, options, 0) == (first, counts)
    assert augmented(TEXTS, options, 1)[0] != first
    assert counts["copies"] == sum(map(len, first)) == 180 - counts["same"]
    assert all(count > 0 for count in counts.values())
    assert all(
        text not in copies and len(set(copies)) == len(copies) for (text, _), copies in zip(TEXTS, first, strict=True)
    )


def test_more_copies_begin_with_the_same_ones():
    few, many = (augmented(TEXTS, AugmentOptions(copies=n, swap=0.9), 0)[0] for n in (2, 5))
    assert all(more[: len(some)] == some for some, more in zip(few, many, strict=True))


def test_deletion_leaves_words_in_their_order_and_at_least_one():
    copies, counts = augmented(TEXTS, AugmentOptions(copies=4, deletion=0.9), 0)
    for (text, _), some in zip(TEXTS, copies, strict=True):
        for copy in some:
            rest = iter(text)
            assert all(character in rest for character in copy), (text, copy)
            assert copy
    assert counts["deleted"] > 0


def test_swap_keeps_every_character():
    copies, counts = augmented(TEXTS, AugmentOptions(copies=4, swap=0.8), 0)
    assert all(sorted(copy) == sorted(text) for (text, _), some in zip(TEXTS, copies, strict=True) for copy in some)
    assert counts["swapped"] > 0


def test_a_synonym_is_one_of_the_nearest_words_and_words_without_a_vector_stay(vectors):
    options = AugmentOptions(copies=8, synonyms=1.0, neighbors=2, vectors=vectors)
    [copies], counts = augmented([("木匠在河边", "体育")], options, 0)
    assert set(copies) == {"地图在河边", "星星在河边"}
    assert counts["replaced"] == 8
    least = AugmentOptions(copies=8, synonyms=1.0, neighbors=4, least_similarity=0.993, vectors=vectors)
    assert augmented([("木匠在河边", "体育")], least, 0)[0] == [["地图在河边"]]


def test_a_mixed_copy_is_the_beginning_of_one_text_and_the_end_of_another_of_its_label():
    copies, _ = augmented(TEXTS, AugmentOptions(copies=2, mixing=1.0), 0)
    by_label = {name: [words_of(text) for text, label in TEXTS if label == name] for name in NAMES}
    for (text, label), some in zip(TEXTS, copies, strict=True):
        for copy in some:
            assert any(
                copy == "".join(words_of(text)[:first] + other[last:])
                for other in by_label[label]
                for first in range(1, len(words_of(text)) + 1)
                for last in range(len(other) + 1)
            ), (text, copy)


def test_texts_of_several_sentences_are_mixed_between_sentences():
    one, other = ([f"{letter}{n}{end}" for n in range(4) for end in ("。",)] for letter in "甲乙")
    for seed in range(20):
        found = "".join(mix([w for s in one for w in s], [w for s in other for w in s], random.Random(seed)))
        assert found.count("。") == 4
        assert sorted(found.replace("乙", "甲")) == sorted("".join(one))


def test_the_only_text_of_a_label_is_mixed_with_itself_and_left_out_as_the_same():
    assert augmented([("收音机地图", "财经")], AugmentOptions(copies=2, mixing=1.0), 0)[1]["same"] == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"copies": 2}, r"augment\.copies=2 and no change that is above 0"),
        ({"swap": 0.2}, r"augment\.copies=0 and a change that is above 0"),
        ({"copies": 1, "synonyms": 0.5}, r"augment\.synonyms=0\.5 without augment\.vectors"),
        ({"copies": 1, "deletion": 1.0}, r"augment\.deletion=1\.0 is not at least 0 and below 1"),
        ({"copies": -1, "swap": 0.1}, r"augment\.copies=-1 is not at least 0"),
    ],
)
def test_a_wrong_request_is_named(values, words):
    with pytest.raises(ConfigError, match=words):
        AugmentOptions(**values)


def test_fine_tuning_learns_from_copies_in_every_variant_and_measures_on_texts_as_they_are(titles_folder, tokenizer):
    def read(**more):
        return read_sets(
            LabelledOptions(str(titles_folder / "train.txt"), str(titles_folder / "dev.txt"), **more), tokenizer
        )

    plain, dev = read()
    changed, same_dev = read(augment=AugmentOptions(copies=3, swap=0.9))
    copies, counts = augmented([(text, label) for text, label in TEXTS], AugmentOptions(copies=3, swap=0.9), 0)
    assert changed.texts == 60 + counts["copies"]
    assert same_dev.sha256 == dev.sha256
    assert changed.names == plain.names
    assert changed.ids(1).tolist() == [tokenizer.bos_id, *tokenizer.encode(copies[0][0])]
    assert changed.labels[: 1 + len(copies[0])].tolist() == [plain.labels[0]] * (1 + len(copies[0]))
    twice, _ = read(augment=AugmentOptions(copies=3, swap=0.9), variants=2)
    assert twice.texts == 2 * changed.texts


def test_the_command_writes_texts_and_copies_that_fine_tuning_reads(titles_folder, tokenizer, tmp_path, capsys):
    arguments = ["augment", "--input", titles_folder / "train.txt", "--output", tmp_path / "a.jsonl"]
    run_verb([*map(str, arguments), "--augment.copies", "2", "--augment.swap", "0.9", "--seed", "3"])
    said = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == said["texts"] + said["copies"] == 60 + said["copies"]
    assert [(row["text"], row["label"]) for row in rows if row["copy"] == 0] == TEXTS
    found, _ = read_sets(LabelledOptions(str(tmp_path / "a.jsonl")), tokenizer)
    assert found.texts == len(rows)
    with pytest.raises(ConfigError, match="exists already"):
        run_verb([*map(str, arguments), "--augment.copies", "2", "--augment.swap", "0.9"])
    with pytest.raises(ConfigError, match=r"augment\.copies=0: nothing is asked for"):
        run_verb([*map(str, arguments[:-1]), str(tmp_path / "b.jsonl")])


def test_wrong_texts_and_vectors_leave_no_file(titles_folder, tmp_path):
    arguments = ["augment", "--output", str(tmp_path / "a.jsonl"), "--augment.copies", "1"]
    with pytest.raises(InputError, match=r"none\.txt is not a whole file of word vectors"):
        run_verb([*arguments, "--input", str(titles_folder / "train.txt"), "--augment.synonyms", "0.5",
                  "--augment.vectors", str(tmp_path / "none.txt")])  # fmt: skip
    (tmp_path / "bad.jsonl").write_text('{"text": "木匠"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl: line 1: '木匠' has no label"):
        run_verb([*arguments, "--input", str(tmp_path / "bad.jsonl"), "--augment.swap", "0.5"])
    assert not (tmp_path / "a.jsonl").exists()
