"""A folder of other tools is the model that transformers computes, in every format, or is refused by its key."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megadec.common.errors import ConfigError, ExportError, MissingExtraError
from megadec.export.commands import convert
from megadec.export.gguf.llama_cpp import LlamaCppModel
from megadec.export.gguf.writer import to_gguf
from megadec.export.huggingface.foreign import proven
from megadec.export.onnx.runtime import OnnxModel
from megadec.export.read.load import load_decoder
from megadec.export.read.open_model import open_model
from tests.support.foreign_models import READ, REFUSED, make_foreign

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4


def their_logits(folder: Path, ids_BS: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(ids_BS).logits


def random_ids(folder: Path) -> torch.Tensor:
    """Of the whole context."""
    config = json.loads((folder / "config.json").read_text())
    return torch.randint(3, config["vocab_size"], (2, config["max_position_embeddings"]))


@pytest.mark.parametrize("name", READ)
def test_a_foreign_folder_that_is_read_gives_the_logits_of_transformers(tmp_path, tiny_tokenizer_path, name):
    folder = make_foreign(tmp_path / "model", READ[name], tiny_tokenizer_path)
    convert(["--input", str(folder), "--to", "megadec", "--output", str(tmp_path / "converted")])
    stated = json.loads((tmp_path / "converted" / "manifest.json").read_text())["source"]["compared_with_its_runtime"]
    assert stated["largest_logit_difference"] < TOLERANCE
    assert stated["runtime"] == f"transformers {transformers.__version__}"
    ids_BS = random_ids(folder)
    wanted_BSV = their_logits(folder, ids_BS)
    decoder, _ = load_decoder(tmp_path / "converted")
    with torch.inference_mode():
        assert (decoder(ids_BS) - wanted_BSV).abs().max() < TOLERANCE
    assert wanted_BSV.std() > 0.3


def test_a_foreign_classifier_is_compared_by_the_logits_of_its_labels(tmp_path, tiny_tokenizer_path):
    case = replace(READ["qwen2-tied"], labels=3)
    source = open_model(make_foreign(tmp_path / "model", case, tiny_tokenizer_path))
    assert source.classes == 3
    assert proven(source).proof["largest_logit_difference"] < TOLERANCE
    with pytest.raises(ExportError, match="does not compute what transformers does"):
        proven(replace(source, shape=replace(source.shape, norm_eps=1e-2)))


def test_without_transformers_the_extra_is_named(tmp_path, tiny_tokenizer_path, monkeypatch):
    source = open_model(make_foreign(tmp_path / "model", READ["mistral"], tiny_tokenizer_path))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"megadec\[export\]"):
        proven(source)


IN_FORMATS = {
    "hf": ["qwen2-bf16-sharded-padded", "llama-llama3", "qwen3-yarn"],
    "gguf": [
        "qwen2-bf16-sharded-padded", "llama-llama3", "qwen3-yarn", "qwen3-linear", "llama-biases", "mistral-wide-window"
    ],
    "onnx": ["qwen2-bf16-sharded-padded", "qwen3-yarn", "llama-biases"],
}  # fmt: skip


@pytest.mark.parametrize(("to", "name"), [(to, name) for to, names in IN_FORMATS.items() for name in names])
def test_every_format_of_a_foreign_folder_is_the_model_in_its_own_runtime(tmp_path, tiny_tokenizer_path, name, to):
    """The gate compares with our reading; here the runtime's logits are compared with those of the source itself."""
    pytest.importorskip({"hf": "transformers", "gguf": "cyllama", "onnx": "onnxruntime"}[to])
    folder, output = make_foreign(tmp_path / "model", READ[name], tiny_tokenizer_path), tmp_path / "converted"
    convert(["--input", str(folder), "--to", to, "--dtype", "float32", "--output", str(output)])
    stated = json.loads((output / "megadec.json").read_text())
    assert stated["source"]["compared_with_its_runtime"]["largest_logit_difference"] < TOLERANCE
    ids_S = random_ids(folder)[0]
    if to == "gguf":
        found_SV = LlamaCppModel(output / "model.gguf").logits(ids_S.tolist())
    elif to == "onnx":
        found_SV = OnnxModel(output).logits(ids_S.tolist())
    else:
        found_SV = their_logits(output, ids_S[None])[0]
    assert (found_SV - their_logits(folder, ids_S[None])[0]).abs().max() < 2 * TOLERANCE


@pytest.mark.parametrize("name", REFUSED)
def test_a_foreign_folder_that_our_decoder_cannot_be_is_refused_by_the_key(tmp_path, tiny_tokenizer_path, name):
    folder = make_foreign(tmp_path / "model", REFUSED[name], tiny_tokenizer_path)
    with pytest.raises(ExportError, match=rf"model/config\.json: .*{re.escape(REFUSED[name].refused)}"):
        convert(["--input", str(folder), "--to", "megadec", "--output", str(tmp_path / "converted")])
    assert not (tmp_path / "converted").exists()


def test_a_reading_that_is_not_what_transformers_computes_is_refused(tmp_path, tiny_tokenizer_path):
    source = open_model(make_foreign(tmp_path / "model", READ["llama-yarn-mscale"], tiny_tokenizer_path))
    for wrong in ({"rope_theta": 20000.0}, {"rope_scaling": None}, {"norm_eps": 1e-2}):
        with pytest.raises(ExportError, match=r"model: megadec does not compute what transformers does: logits of ids"):
            proven(replace(source, shape=replace(source.shape, **wrong)))
    assert proven(replace(source, foreign=False)).proof is None


def test_what_llama_cpp_cannot_scale_is_refused_by_the_key(tmp_path, tiny_tokenizer_path):
    cases = {
        "rope_scaling.truncate=false": READ["llama-yarn-untruncated"],
        "rope_scaling.rope_type=llama3": replace(READ["llama-llama3"], model_type="qwen2"),
    }
    for number, (words, case) in enumerate(cases.items()):
        source = open_model(make_foreign(tmp_path / f"model{number}", case, tiny_tokenizer_path))
        with pytest.raises(ConfigError, match=re.escape(words)):
            to_gguf(source, tmp_path / "model-gguf")
