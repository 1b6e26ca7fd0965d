"""The Hugging Face export of a classifier is the classifier, in transformers and read back by us."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.export.huggingface.export import check_hf, to_hf
from megadec.export.read.load import load_source
from megadec.export.read.open_model import open_model
from megadec.export.read.source import ModelSource
from tests.support.sources import random_classifier, without_hashes

transformers = pytest.importorskip("transformers")

VARIANTS = {"qwen3-tied-bfloat16": (True, torch.bfloat16), "llama-untied-float32": (False, torch.float32)}


class Exported(NamedTuple):
    source: ModelSource
    folder: Path
    dtype: torch.dtype


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def exported(request, tmp_path_factory, tiny_tokenizer_path) -> Exported:
    modern, dtype = request.param
    source = random_classifier(
        tiny_tokenizer_path, {"template": "标题：{text}"}, qk_norm=modern, tied_embeddings=modern
    )
    folder = tmp_path_factory.mktemp("exports") / "model-hf"
    parity = to_hf(source, folder, dtype=dtype)
    assert (parity.prompts, parity.greedy_tokens) == (50, 0)
    return Exported(source, folder, dtype)


def test_transformers_classifies_a_padded_batch_of_texts_as_we_do_one_by_one(exported):
    folder = exported.folder
    texts = ["清晨，小林在河边。", "老周", "去年冬天，船长在码头修好了三台收音机。abc"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    batch = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    assert batch["attention_mask"].sum(1).unique().numel() == 3
    ours, tokenizer = load_source(open_model(folder))
    with torch.inference_mode():
        found_BL = model(**batch).logits
        rows = [torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text)]]) for text in texts]
        wanted_BL = torch.cat([ours(ids_BS)[:, -1] for ids_BS in rows])
    assert wanted_BL.std() > 0.1
    assert (found_BL - wanted_BL).abs().max() < 1e-4


def test_the_pipeline_of_transformers_names_the_labels(exported):
    folder = exported.folder
    classify = transformers.pipeline("text-classification", model=str(folder))
    found = classify(["清晨，小林在河边。", "老周"], top_k=None, batch_size=2)
    assert [{answer["label"] for answer in answers} for answers in found] == [{"体育", "财经", "房产"}] * 2


def test_it_is_read_back_with_its_task_and_its_weights(exported):
    source, folder, _ = exported
    found = open_model(folder)
    assert (found.task, found.shape, found.step) == (source.task, source.shape, 12)
    assert found.names() == source.names()
    assert all(torch.equal(found.tensor(name), source.tensor(name).to(found.dtype)) for name in source.names())


def test_a_folder_without_our_own_file_has_the_labels_of_its_config(exported, tmp_path):
    folder = shutil.copytree(exported.folder, tmp_path / "copy")
    (folder / "megadec.json").unlink()
    assert open_model(folder).task == {"kind": "classification", "labels": ["体育", "财经", "房产"]}


@pytest.fixture
def copy(exported, tmp_path) -> Exported:
    return exported._replace(folder=without_hashes(shutil.copytree(exported.folder, tmp_path / "copy")))


def test_two_swapped_labels_are_refused(copy):
    source, folder, dtype = copy
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"], config["id2label"]["1"] = config["id2label"]["1"], config["id2label"]["0"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"config\.json has labels .* megadec\.json says"):
        open_model(folder)
    (folder / "megadec.json").unlink()
    with pytest.raises(ExportError, match="transformers has labels"):
        check_hf(folder, source, dtype)


def test_a_tokenizer_that_pads_with_another_id_than_the_model_knows_is_refused(copy):
    """Then transformers would read the logits behind padding."""
    source, folder, dtype = copy
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pad_token": "<unk>"}))
    with pytest.raises(ExportError, match=r"logits of ids .* differ"):
        check_hf(folder, source, dtype)
