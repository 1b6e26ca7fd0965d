"""Texts labelled by classifiers: what is written is read again, labels are drawn by probability, mistakes are named."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megadec.common.errors import ConfigError, InputError
from megadec.export.read.megadec import to_megadec
from megadec.finetune.classify import load_classifier
from megadec.finetune.examples import LabelledOptions, read_sets
from megadec.finetune.pseudo_labels import PseudoOptions, label_texts
from megadec.finetune.soft_labels import draw_labels, read_soft
from tests.support.sources import random_classifier
from tests.support.titles import WORDS, titles

NAMES = tuple(WORDS)


def write_classifier(folder: Path, tokenizer: Path, names: tuple[str, ...] = NAMES, factor: float = 1.0) -> Path:
    """A classifier of random weights, its head multiplied by `factor`."""
    source = random_classifier(tokenizer, {"labels": list(names)})
    source.reader.tensors["score.weight"] *= factor  # type: ignore[attr-defined]
    to_megadec(source, folder)
    return folder


def line(text: str = "木匠在河边", **probabilities: float) -> str:
    return json.dumps({"text": text, "probabilities": probabilities or {"体育": 1.0}}, ensure_ascii=False) + "\n"


@pytest.fixture
def soft_file(tmp_path: Path) -> Path:
    path = tmp_path / "soft.jsonl"
    path.write_text("".join(line(text, 体育=0.25, 科技=0.75) for text, _ in titles(40, 3)), encoding="utf-8")
    return path


def test_a_label_is_drawn_as_often_as_its_probability_says():
    rows = np.tile([0.2, 0.0, 0.8], (20_000, 1))
    drawn = draw_labels(rows, 7)
    assert np.bincount(drawn, minlength=3) / len(rows) == pytest.approx([0.2, 0.0, 0.8], abs=0.02)
    assert np.array_equal(drawn, draw_labels(rows, 7))
    assert not np.array_equal(drawn, draw_labels(rows, 8))


def test_every_variant_holds_the_soft_texts_once_with_labels_of_its_own(titles_folder, tokenizer, soft_file):
    options = LabelledOptions(str(titles_folder / "train.txt"), soft=str(soft_file), variants=2, bpe_dropout=0.0)
    found, again = (read_sets(options, tokenizer)[0] for _ in range(2))
    labelled = read_sets(replace(options, soft="", variants=1), tokenizer)[0].texts
    assert found.texts == 2 * (labelled + 40)
    assert found.sha256 == again.sha256
    first = slice(labelled, labelled + 40)
    second = slice(2 * labelled + 40, None)
    assert set(found.labels[first]) | set(found.labels[second]) == {NAMES.index("体育"), NAMES.index("科技")}
    assert not np.array_equal(found.labels[first], found.labels[second])


def test_labels_of_several_classifiers_are_their_mean(tmp_path, tiny_tokenizer_path):
    models = tuple(write_classifier(tmp_path / f"times_{n}", tiny_tokenizer_path, factor=n) for n in (1, -3))
    texts = tmp_path / "titles.jsonl"
    wanted = [text for text, _ in titles(9, 4)]
    texts.write_text("".join(json.dumps({"text": text}) + "\n" for text in wanted), encoding="utf-8")
    output = tmp_path / "soft.jsonl"
    report = label_texts(PseudoOptions(models=models, input=(texts,), source="jsonl", output=output))
    assert (report["read"], report["written"]) == (9, 9)
    found, probabilities = read_soft(output, NAMES)
    assert found == wanted
    mean = sum(load_classifier(folder).probabilities(wanted).double().numpy() for folder in models) / 2
    assert probabilities == pytest.approx(mean, abs=2e-6)
    other = tmp_path / "confident.jsonl"
    confident = PseudoOptions(models=models, input=(texts,), source="jsonl", output=other, least_confidence=0.999)
    assert label_texts(confident)["written"] < 9


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("木匠\t0\n", "line 1 is not"),
        (line() + '{"text": "木匠"}\n', "line 2 is not"),
        (line(" "), "line 1: the text is empty"),
        (line(体育=0.5, 财金=0.5), "'财金' is not one of the 3"),
        (line(体育=0.5), "add up to 1"),
        (line(体育=1.5, 财经=-0.5), "add up to 1"),
        ("", "no text at all"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, said):
    path = tmp_path / "soft.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_soft(path, NAMES)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_classifiers_of_other_labels_are_refused(tmp_path, tiny_tokenizer_path):
    orders = {"one": NAMES, "two": NAMES[::-1]}
    models = tuple(write_classifier(tmp_path / name, tiny_tokenizer_path, names) for name, names in orders.items())
    texts = tmp_path / "titles.jsonl"
    texts.write_text(json.dumps({"text": "木匠"}) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="two knows the labels"):
        label_texts(PseudoOptions(models=models, input=(texts,), source="jsonl", output=tmp_path / "soft.jsonl"))
    assert not (tmp_path / "soft.jsonl").exists()
