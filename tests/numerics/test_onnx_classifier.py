"""The ONNX export of a classifier is the classifier, however its texts are batched."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from megadec.common.errors import ExportError, InputError
from megadec.export.onnx.export import check_onnx, to_onnx, write_model
from megadec.export.onnx.runtime import OnnxClassifier, OnnxModel
from megadec.export.read.load import load_source
from megadec.export.read.source import ModelSource
from megadec.finetune.classify import classifier_of
from tests.support.sources import random_classifier

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, tiny_tokenizer_path) -> tuple[ModelSource, Path]:
    source = random_classifier(tiny_tokenizer_path)
    folder = tmp_path_factory.mktemp("exports") / "model-onnx"
    assert to_onnx(source, folder).prompts == 50
    return source, folder


@pytest.fixture(scope="module")
def theirs(exported) -> OnnxClassifier:
    return OnnxClassifier(exported[1])


def test_texts_of_other_lengths_in_one_batch_keep_their_logits(exported, theirs):
    ours = load_source(exported[0])[0]
    rows = [torch.randint(3, 600, (tokens,)).tolist() for tokens in (1, 48, 7, 20)]
    with torch.inference_mode():
        wanted_BL = torch.stack([ours(torch.tensor([ids]))[0, -1] for ids in rows])
    assert wanted_BL.std() > 0.1
    assert (theirs.logits(rows) - wanted_BL).abs().max() < 1e-4


def test_padding_in_front_of_a_text_is_understood_too(exported, theirs):
    ids = torch.randint(3, 600, (9,)).tolist()
    tokens = {"input_ids": np.array([[0] * 5 + ids]), "attention_mask": np.array([[0] * 5 + [1] * 9])}
    found_BL = theirs.runtime.run(["logits"], tokens)[0]
    assert np.abs(found_BL - theirs.logits([ids]).numpy()).max() < 1e-4


def test_texts_get_a_probability_for_each_label(theirs):
    texts = ["清晨，小林在河边。", "老周 ", "大家都很高兴" * 30] * 7
    found = theirs.classify(texts)
    assert len(found) == 21
    assert all(list(shares) == ["体育", "财经", "房产"] for shares in found)
    assert all(abs(sum(shares.values()) - 1) < 1e-6 for shares in found)
    assert found[0] == pytest.approx(theirs.classify(texts[:1])[0], abs=1e-5)


@pytest.mark.parametrize("cut", ["head", "tail"])
def test_texts_become_ids_as_they_did_in_training(exported, tmp_path, cut):
    """The template, the blanks around a text, and what is cut from a long one: `Classifier` of finetune says it."""
    form = {"template": "标题：{text}。类别：", "sequence_length": 24, "cut": cut}
    source = dataclasses.replace(exported[0], task={**exported[0].task, **form})
    write_model(tmp_path, source)
    shutil.copyfile(source.tokenizer_path, tmp_path / "tokenizer.model")
    ours, theirs = classifier_of(source), OnnxClassifier(tmp_path)
    texts = [" 小林\n", "清晨，小林在河边。", "大家都很高兴，老周没有人知道原因。" * 9]
    for wanted, found in zip(ours.classify(texts), theirs.classify(texts), strict=True):
        assert found == pytest.approx(wanted, abs=1e-5)
    for classifier in (ours, theirs):
        with pytest.raises(InputError, match="text 1 is empty"):
            classifier.classify(["小林", "\n"])


def test_two_swapped_labels_are_refused(exported):
    source, folder = exported
    swapped = dataclasses.replace(source, task={**source.task, "labels": ["财经", "体育", "房产"]})
    with pytest.raises(ExportError, match="the graph says its task is"):
        check_onnx(folder, swapped)


def test_a_classifier_is_no_language_model(exported):
    with pytest.raises(ExportError, match="is for classification; a language_model was wanted"):
        OnnxModel(exported[1])


def test_a_text_beyond_the_context_is_refused(theirs):
    with pytest.raises(InputError, match="49 tokens do not fit"):
        theirs.logits([[1], [1] * 49])
