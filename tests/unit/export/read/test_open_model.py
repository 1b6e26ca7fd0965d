"""Opening what a user names: the right reader, and a clear error for what is not whole."""

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megadec.common.errors import CheckpointError, ConfigError, ExportError
from megadec.common.files import sha256_of, write_json
from megadec.export.read.load import load_decoder, load_source
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from megadec.export.read.source import ModelSource
from tests.support.sources import random_classifier, random_source
from tests.support.state_files import write_state_files

STATE = "state/rank_00000.safetensors"


def write_checkpoint(source: ModelSource, folder: Path, leave_out: str = "", **more: torch.Tensor) -> Path:
    """A checkpoint made by hand; the engine's own are read in tests/dist/test_export.py."""
    tensors = {name: source.tensor(name) for name in source.names() if name != leave_out}
    write_state_files(folder, tensors | more)
    shutil.copyfile(source.tokenizer_path, folder / "tokenizer.model")
    files = [STATE, "tokenizer.model"]
    manifest = {
        "format": "megadec-checkpoint",
        "version": 2,
        "step": 12,
        "tokens": 3456,
        "precision": "fp32",
        "task": dict(source.task),
        "shape": source.shape.to_dict(),
        "tokenizer": {"sha256": sha256_of(source.tokenizer_path)},
        "files": {n: {"bytes": (folder / n).stat().st_size, "sha256": sha256_of(folder / n)} for n in files},
    }
    write_json(folder / "manifest.json", manifest)
    return folder


@pytest.fixture
def source(tiny_tokenizer_path):
    return random_source(tiny_tokenizer_path)


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_and_a_megadec_folder_give_each_tensor_once_bit_for_bit(tmp_path, tiny_tokenizer_path, tied):
    source = random_source(tiny_tokenizer_path, tied_embeddings=tied, qk_norm=tied)
    to_megadec(source, tmp_path / "m")
    for kind, folder in (("checkpoint", write_checkpoint(source, tmp_path / "c")), ("megadec", tmp_path / "m")):
        found = open_model(folder)
        assert (found.kind, found.shape, found.step, found.tokens) == (kind, source.shape, 12, 3456)
        assert found.dtype == torch.float32
        assert ("lm_head.weight" in found.names()) == (not tied)
        assert all(torch.equal(found.tensor(name), source.tensor(name)) for name in source.names())


def test_the_weights_of_a_bfloat16_run_stay_float32_unless_asked(tmp_path, source):
    source = replace(source, dtype=torch.bfloat16)
    to_megadec(source, tmp_path / "masters")
    to_megadec(source, tmp_path / "small", dtype=torch.bfloat16)
    assert open_model(tmp_path / "masters").dtype == torch.float32
    assert open_model(tmp_path / "small").dtype == torch.bfloat16
    to_megadec(open_model(tmp_path / "small"), tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "small/model.safetensors").read_bytes()


def test_a_run_gives_its_newest_checkpoint_or_the_best_where_an_evaluation_chose_one(tmp_path, source):
    for step in (5, 100, 20):
        write_checkpoint(source, tmp_path / f"checkpoints/step_{step:08d}")
    write_checkpoint(source, tmp_path / "checkpoints/.step_00000200.partial")
    assert open_model(tmp_path).path.name == "step_00000100"
    write_json(tmp_path / "best.json", {"step": 5, "metric": "dev/accuracy", "value": 0.9})
    assert open_model(tmp_path).path.name == "step_00000005"


def test_a_newer_checkpoint_that_is_damaged_is_passed_over_with_a_warning(tmp_path, source, monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("megadec"), "propagate", True)
    for step in (5, 100):
        write_checkpoint(source, tmp_path / f"checkpoints/step_{step:08d}")
    (tmp_path / "checkpoints/step_00000100" / STATE).unlink()
    assert open_model(tmp_path).path.name == "step_00000005"
    assert "step_00000100" in caplog.text
    (tmp_path / "checkpoints/step_00000005/tokenizer.model").unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint under .* is whole"):
        open_model(tmp_path)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("name", ["model.safetensors", "shape.json", "tokenizer.model"])
def test_a_changed_file_of_a_megadec_folder_is_refused_by_name(tmp_path, source, name):
    to_megadec(source, tmp_path / "m")
    flip_a_bit(tmp_path / "m" / name)
    with pytest.raises(ExportError, match=f"{name} was changed"):
        open_model(tmp_path / "m")


def test_a_changed_file_of_a_checkpoint_and_another_tokenizer_than_the_runs_are_refused(tmp_path, source):
    folder = write_checkpoint(source, tmp_path / "c")
    flip_a_bit(folder / STATE)
    with pytest.raises(CheckpointError, match="rank_00000"):
        open_model(folder)
    folder = write_checkpoint(source, tmp_path / "d")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["tokenizer"]["sha256"] = "0" * 64
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(CheckpointError, match=r"tokenizer\.model has sha256"):
        open_model(folder)


@pytest.mark.parametrize(
    ("leave_out", "more", "words"),
    [
        ("layers.1.mlp.up_proj.weight", {}, r"'layers.1.mlp.up_proj.weight' is missing"),
        ("", {"layers.2.mlp.up_proj.weight": torch.zeros(2)}, r"'layers.2.mlp.up_proj.weight' is left over"),
        ("", {"norm.weight": torch.zeros(47)}, r"'norm.weight' has shape \[47\]; the model wants \[48\]"),
    ],
)
def test_a_tensor_that_is_missing_left_over_or_of_another_size_is_named(tmp_path, source, leave_out, more, words):
    folder = write_checkpoint(source, tmp_path / "c", leave_out, **more)
    with pytest.raises(CheckpointError, match=words):
        open_model(folder)


def test_a_classifiers_checkpoint_and_its_megadec_folder_have_its_labels_and_its_score(tmp_path, tiny_tokenizer_path):
    source = random_classifier(tiny_tokenizer_path)
    to_megadec(source, tmp_path / "m")
    for folder in (write_checkpoint(source, tmp_path / "c"), tmp_path / "m"):
        found = open_model(folder)
        assert (found.task, found.classes) == (source.task, 3)
        assert found.names()[-1] == "score.weight"
        classifier, _ = load_source(found)
        assert torch.equal(classifier.score.weight, source.tensor("score.weight"))
    with pytest.raises(CheckpointError, match=r"'score.weight' is missing"):
        open_model(write_checkpoint(source, tmp_path / "without", leave_out="score.weight"))


def test_a_lora_checkpoint_gives_merged_tensors_under_the_plain_names(tmp_path, tiny_tokenizer_path):
    source = random_classifier(tiny_tokenizer_path, {"lora": {"rank": 2, "alpha": 6.0}})
    name = "layers.1.self_attn.q_proj"
    a, b = torch.randn(2, 48), torch.randn(64, 2)
    found = open_model(write_checkpoint(source, tmp_path / "c", **{f"{name}.lora_a": a, f"{name}.lora_b": b}))
    assert found.names() == source.names()
    whole = source.tensor(f"{name}.weight").double() + 3 * b.double() @ a.double()
    torch.testing.assert_close(found.tensor(f"{name}.weight").double(), whole, rtol=1e-5, atol=1e-5)
    others = [other for other in source.names() if other != f"{name}.weight"]
    assert all(torch.equal(found.tensor(other), source.tensor(other)) for other in others)


def test_a_model_of_another_kind_is_refused_by_its_name(tmp_path, source):
    source = replace(source, task={"kind": "seq2seq"})
    with pytest.raises(ConfigError, match="holds a seq2seq model"):
        open_model(write_checkpoint(source, tmp_path / "c"))


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    for name, error, words in (
        ("nothing", ConfigError, "is not a folder"),
        ("empty", ConfigError, "holds no model"),
        ("run", CheckpointError, "has no checkpoint"),
    ):
        with pytest.raises(error, match=words):
            open_model(tmp_path / name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_decoder_has_the_weights_and_a_shared_output_layer(tmp_path, source, dtype):
    decoder, tokenizer = load_decoder(write_checkpoint(source, tmp_path / "c"), dtype)
    assert decoder.lm_head.weight is decoder.embed_tokens.weight
    assert not decoder.training
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, source.tensor(name).to(dtype))
    logits_BSV = decoder(torch.tensor([[tokenizer.bos_id, 5]]))
    assert logits_BSV.shape == (1, 2, source.shape.vocabulary_size)
