"""What is said about a classifier follows from its answers, also for labels that it never gives."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from megadec.common.errors import ConfigError, InputError, MissingExtraError
from megadec.engine.metrics.plot import draw_confusion, font_with
from megadec.export.read.megadec import to_megadec
from megadec.finetune.classify import load_classifier
from megadec.finetune.commands import evaluate as main
from megadec.finetune.score import ClassifierScoreOptions, figures
from tests.support.sources import random_classifier
from tests.support.titles import WORDS, titles

LABELS = ["体育", "财经", "科技"]


def test_the_figures_are_those_of_a_matrix_counted_by_hand():
    # 体育: 2 of 3 found; one of its texts is called 财经. 财经: found once, said twice. 科技: one of two found.
    found = figures(np.array([0, 0, 0, 1, 2, 2]), np.array([0, 0, 1, 1, 2, 0]), LABELS)
    assert found["confusion"] == [[2, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert (found["texts"], found["labels"]) == (6, LABELS)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["per_label"]["体育"] == {
        "precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3), "texts": 3
    }  # fmt: skip
    assert found["per_label"]["财经"]["precision"] == pytest.approx(1 / 2)
    assert found["per_label"]["科技"]["recall"] == pytest.approx(1 / 2)
    assert found["macro"]["precision"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found["macro"]["recall"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert found["micro"] == {name: pytest.approx(4 / 6) for name in ("precision", "recall", "f1")}


def test_a_label_that_is_never_said_has_no_precision_and_counts_in_the_mean():
    found = figures(np.array([0, 1, 2]), np.array([0, 1, 1]), LABELS)
    assert found["per_label"]["科技"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "texts": 1}
    assert found["macro"]["recall"] == pytest.approx(2 / 3)
    # Without texts too it stays in the matrix and out of the mean.
    found = figures(np.array([0, 1, 1]), np.array([0, 1, 1]), LABELS)
    assert [len(row) for row in found["confusion"]] == [3, 3, 3]
    assert found["per_label"]["科技"]["texts"] == 0
    assert found["macro"] == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.metrics", None)
    with pytest.raises(MissingExtraError, match=r"megadec\[finetune\]"):
        figures(np.array([0]), np.array([0]), LABELS)


@pytest.fixture
def model(tmp_path: Path, tiny_tokenizer_path: Path) -> Path:
    """A classifier with random weights."""
    source = random_classifier(tiny_tokenizer_path, {"labels": list(WORDS), "sequence_length": 40})
    to_megadec(source, tmp_path / "model")
    return tmp_path / "model"


def test_evaluate_counts_what_the_classifier_answers_and_draws_it(tmp_path, model, titles_folder, capsys):
    picture, output = tmp_path / "matrix.png", tmp_path / "figures.json"
    data = titles_folder / "dev.txt"
    main(["--model", str(model), "--data", str(data), "--confusion", str(picture), "--output", str(output)])
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(output.read_text(encoding="utf-8"))
    texts = titles(18, 2)
    shares = load_classifier(model).classify([text for text, _ in texts])
    said = [max(one, key=one.__getitem__) for one in shares]
    pairs = list(zip((list(WORDS)[number] for _, number in texts), said, strict=True))
    assert found["accuracy"] == pytest.approx(sum(true == answer for true, answer in pairs) / len(pairs))
    counted = [[pairs.count((true, answer)) for answer in WORDS] for true in WORDS]
    assert (found["labels"], found["confusion"]) == (list(WORDS), counted)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_label_that_the_classifier_does_not_have_is_refused_with_its_line(tmp_path, model):
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": "木匠修门", "label": "体育"}\n{"text": "船长出海", "label": "天气"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"texts\.jsonl.*the label '天气' is not one of the 3"):
        main(["--model", str(model), "--data", str(data)])


def test_an_option_of_another_kind_of_model_is_refused(model, titles_folder, pretrained):
    with pytest.raises(ConfigError, match="sequence_length"):
        main(["--model", str(model), "--data", str(titles_folder / "dev.txt"), "--sequence_length", "8"])
    with pytest.raises(ConfigError, match="confusion"):
        main(["--model", str(pretrained), "--data", str(titles_folder), "--confusion", "a.png"])
    with pytest.raises(ConfigError, match=r"does not end in \.png"):
        ClassifierScoreOptions(Path("model"), Path("data"), confusion=Path("a.pdf"))


def test_a_picture_whose_labels_no_font_can_write_numbers_them_and_says_so(tmp_path, caplog):
    assert font_with({"体", "\U0010fffd"}) is None
    assert font_with({"a", " ", "é"}) is not None
    with caplog.at_level("WARNING"):
        draw_confusion([[3, 1], [0, 2]], ["\U0010fffd", "b"], tmp_path / "a.png")
    assert "no installed font" in caplog.text
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
