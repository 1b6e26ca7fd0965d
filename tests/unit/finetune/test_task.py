"""A fine-tuning run is checked before anything costs, and begins from the pretrained values."""

import json
from pathlib import Path

import pytest
import torch

from megadec.common.config import from_dict
from megadec.common.errors import ConfigError
from megadec.engine.runs.common import Job
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from megadec.finetune.task import FineTuneRun, open_finetune
from tests.support import PROJECT
from tests.support.sources import random_classifier
from tests.support.titles import write_titles

ZERO2 = PROJECT / "ds_configs" / "zero2.json"


def run_of(folder: Path, pretrained: Path, **sections: object) -> FineTuneRun:
    values = {
        "name": "titles",
        "output_folder": str(folder / "runs"),
        "model": {"path": str(pretrained)},
        "data": {**{name: str(folder / f"titles/{name}.txt") for name in ("train", "dev")}, "sequence_length": 32},
        "train": {"global_batch_size": 4, "micro_batch_size": 2, "precision": "fp32"},
    }
    for key, value in sections.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value  # type: ignore[dict-item]
    return from_dict(FineTuneRun, values)


def opened(folder: Path, pretrained: Path, **sections: object) -> Job:
    write_titles(folder / "titles")
    return open_finetune(run_of(folder, pretrained, **sections), ZERO2)


def test_epochs_become_steps(tmp_path, pretrained):
    job = opened(tmp_path, pretrained, epochs=2.5)
    rows = job.task.stream.windows_per_epoch
    assert job.run.train.steps == -(-2.5 * rows // 4)


@pytest.mark.parametrize("method", ["full", "frozen", "lora"])
def test_the_first_values_are_the_pretrained_ones_and_a_new_head(tmp_path, pretrained, method):
    task = opened(tmp_path, pretrained, method=method).task
    source = open_model(pretrained)
    for name, size in task.sizes.items():
        value = task.first_value(name)
        assert (tuple(value.shape), value.dtype) == (size, torch.float32)
        if name.endswith("lora_b"):
            assert not value.any()
        elif "lora_a" not in name and name != "score.weight":
            assert torch.equal(value, source.tensor(name))
    assert task.sizes["score.weight"] == (3, source.shape.hidden_size)
    assert task.manifest["labels"] == ["体育", "财经", "科技"]
    assert ("lora" in task.manifest) == (method == "lora")
    assert json.loads(json.dumps(task.manifest)) == task.manifest


def test_from_scratch_nothing_is_pretrained(tmp_path, pretrained):
    task, source = opened(tmp_path, pretrained, method="scratch").task, open_model(pretrained)
    matrices = [name for name, size in task.sizes.items() if len(size) == 2 and name != "score.weight"]
    assert not any(torch.equal(task.first_value(name), source.tensor(name)) for name in matrices)


def test_a_classifier_gives_its_head_to_one_of_the_same_labels_only(tmp_path, tiny_tokenizer_path):
    for labels in (["体育", "财经", "科技"], ["科技", "财经", "体育"]):
        source = random_classifier(tiny_tokenizer_path, {"labels": labels})
        to_megadec(source, tmp_path / labels[0])
        value = opened(tmp_path, tmp_path / labels[0]).task.first_value("score.weight")
        assert torch.equal(value, source.tensor("score.weight")) == (labels[0] == "体育")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"method": "lorra"}, "'full', 'frozen', 'lora', 'scratch'.*lorra"),
        ({"model": {"path": ""}}, "model.path names no model"),
        ({"data": {"sequence_length": 4096}}, "data.sequence_length=4096 is more than the context"),
        ({"data": {"train": ""}}, "data.train names no labelled texts"),
        ({"epochs": 0.0}, "epochs=0.0"),
        ({"loss": {"label_smoothing": 1.0}}, "loss.label_smoothing=1.0"),
        ({"loss": {"weights": {"体": 2.0}}}, "did you mean '体育'"),
        ({"data": {"dev": ""}, "early_stopping": {"metric": "dev/accuracy"}}, "without data.dev"),
        ({"train": {"global_batch_size": 5}}, "not a multiple"),
        ({"data": {"source": "thucnewz"}}, "did you mean 'thucnews'"),
    ],
)
def test_a_wrong_request_is_one_message(tmp_path, pretrained, sections, words):
    with pytest.raises(ConfigError, match=words):
        opened(tmp_path, pretrained, **sections)


def test_another_tokenizer_than_the_models_is_refused(tmp_path, pretrained):
    other = PROJECT / "tokenizer" / "zh_32k" / "tokenizer.model"
    with pytest.raises(ConfigError, match=r"another tokenizer than tokenizer=.*zh_32k"):
        opened(tmp_path, pretrained, tokenizer=str(other))
    assert opened(tmp_path, pretrained, tokenizer=str(pretrained / "tokenizer.model")).tokenizer.bos_id > 0


def test_the_cost_counts_rows_not_texts_and_less_where_less_is_trained(tmp_path, pretrained):
    flops = {m: opened(tmp_path, pretrained, method=m).task.flops(99, 5000) for m in ("full", "lora", "frozen")}
    assert 3 * flops["frozen"] == pytest.approx(flops["full"])
    assert 3 * flops["lora"] == pytest.approx(2 * flops["full"])
