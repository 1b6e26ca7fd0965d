"""A classifier that does not give a text one of several labels is none of ours."""

import json
from pathlib import Path
from typing import Any

import pytest

from megadec.common.errors import ExportError
from megadec.export.read.huggingface_schema import read_config

CLASSIFIER = {"architectures": ["Qwen3ForSequenceClassification"]}


@pytest.mark.parametrize(
    "more", [{}, {"id2label": None, "problem_type": None}, {"problem_type": "single_label_classification"}]
)
def test_one_of_several_labels_is_read(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CLASSIFIER, **more}))
    assert read_config(tmp_path / "config.json") == {**CLASSIFIER, **more}


@pytest.mark.parametrize(
    "more",
    [
        {"problem_type": "multi_label_classification"},
        {"problem_type": "regression"},
        {"id2label": {"0": "a"}},
        {"num_labels": 1},
        {"num_labels": 10**9},
    ],
)
def test_a_classifier_of_another_kind_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CLASSIFIER, **more}))
    with pytest.raises(ExportError, match=r"config\.json: problem_type=.* with \d+ labels; megadec's classifiers give"):
        read_config(tmp_path / "config.json")
