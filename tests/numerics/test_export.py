"""The export is the model: transformers gives our logits, ids and text, and whatever differs is refused."""

import json
import resource
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megadec.common.errors import ExportError, ModelFolderError, StorageError
from megadec.common.tokenizer import Tokenizer
from megadec.export.gguf.writer import to_gguf
from megadec.export.huggingface.export import check_hf, to_hf
from megadec.export.onnx.export import to_onnx
from megadec.export.read.load import load_decoder
from megadec.export.read.megadec import to_megadec
from megadec.export.read.open_model import open_model
from megadec.export.read.source import ModelSource
from tests.support.sources import Unsteady, random_source, without_hashes

transformers = pytest.importorskip("transformers")


LAYOUTS = {
    "qwen3-tied": {},
    "llama-untied": {"qk_norm": False, "tied_embeddings": False},
    # Its vocabulary is a sentencepiece model, so it is written as llama.
    "qwen2-as-llama": {"qk_norm": False, "attention_bias": "qkv"},
}


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS)
def exported(request, tmp_path_factory, tiny_tokenizer_path) -> tuple[ModelSource, Path]:
    """A random decoder with grouped-query attention and its float32 export in several files."""
    source = random_source(tiny_tokenizer_path, **request.param)
    folder = tmp_path_factory.mktemp("exports") / "model-hf"
    parity = to_hf(source, folder, max_shard_bytes=60_000)
    assert parity.greedy_tokens > 50
    return source, folder


def test_transformers_finds_every_tensor_of_its_own_and_no_other_and_gives_our_logits(exported):
    _, folder = exported
    theirs, found = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    ours, tokenizer = load_decoder(folder)
    ids_BS = torch.randint(3, tokenizer.vocabulary_size, (3, 40))
    with torch.no_grad():
        assert (theirs.eval()(ids_BS).logits - ours(ids_BS)).abs().max() < 1e-4
        assert ours(ids_BS).std() > 0.1
    assert theirs.config.model_type in ("llama", "qwen3")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_to_megadec_and_back_every_file_of_weights_is_the_same(tmp_path, tiny_tokenizer_path, dtype):
    to_hf(random_source(tiny_tokenizer_path), tmp_path / "first", dtype=dtype)
    to_megadec(open_model(tmp_path / "first"), tmp_path / "middle")
    to_hf(open_model(tmp_path / "middle"), tmp_path / "second")
    for name in ("model.safetensors", "config.json", "tokenizer.model", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_tokenizer_path) -> tuple[ModelSource, Path]:
    source, folder = random_source(tiny_tokenizer_path), tmp_path_factory.mktemp("exports") / "model-hf"
    to_hf(source, folder)
    return source, folder


@pytest.fixture
def copy(whole, tmp_path) -> tuple[ModelSource, Path]:
    return whole[0], without_hashes(shutil.copytree(whole[1], tmp_path / "copy"))


def test_one_changed_weight_is_refused(copy):
    source, folder = copy
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] += 1e-6
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"'layers.1.mlp.down_proj.weight'"):
        check_hf(folder, source, torch.float32)


def test_two_swapped_pieces_of_the_tokenizer_are_refused(copy):
    source, folder = copy
    content = json.loads((folder / "tokenizer.json").read_text())
    pieces = content["model"]["vocab"]
    one, other = (next(piece for piece, number in pieces.items() if number == wanted) for wanted in (450, 451))
    pieces[one], pieces[other] = pieces[other], pieces[one]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match="ids"):
        check_hf(folder, source, torch.float32, "quick")


def test_another_base_of_rope_is_refused_by_the_logits(copy):
    source, folder = copy
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"] = 20000.0
    (folder / "config.json").write_text(json.dumps(config))
    for mode in ("quick", "full"):
        with pytest.raises(ExportError, match=r"logits of ids .* differ"):
            check_hf(folder, source, torch.float32, mode)


def test_an_export_that_differs_leaves_nothing_under_its_name(tmp_path, tiny_tokenizer_path):
    source = random_source(tiny_tokenizer_path)
    source.__dict__["reader"] = Unsteady(source.shape)
    with pytest.raises(ExportError, match=r"transformers: tensor 'norm.weight' is not what"):
        to_hf(source, tmp_path / "model-hf")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("export", "needs", "room_bytes"),
    [
        (to_hf, "transformers", 100_000),
        (to_onnx, "onnxruntime", 100_000),
        (to_gguf, "cyllama", 100_000),
        (to_gguf, "cyllama", 5_000),  # in the vocabulary
    ],
)
def test_a_full_disk_leaves_nothing_under_the_exports_name(tmp_path, tiny_tokenizer_path, export, needs, room_bytes):
    pytest.importorskip(needs)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, limits[1]))
    try:
        with pytest.raises(StorageError, match="model: cannot write"):
            export(random_source(tiny_tokenizer_path), tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "generation_config.json"])
def test_a_flipped_bit_in_any_file_of_an_export_is_found_when_it_is_opened(whole, tmp_path, name):
    folder = shutil.copytree(whole[1], tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelFolderError, match=f"{name} was changed: its hash is not the one"):
        open_model(folder)


def test_a_folder_with_another_tokenizer_than_it_was_exported_with_is_refused(copy):
    _, folder = copy
    (folder / "tokenizer.model").write_bytes((folder / "tokenizer.model").read_bytes() + b"\n")
    with pytest.raises(ExportError, match=r"tokenizer\.model has sha256"):
        open_model(folder)


def test_a_tied_folder_may_hold_the_output_layer_only_if_it_is_the_embedding(copy):
    source, folder = copy
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, folder / "model.safetensors")
    assert open_model(folder).names() == source.names()
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ExportError, match=r"'lm_head.weight' differs from the embedding"):
        open_model(folder)


def test_a_vocabulary_with_unused_rows_is_exported(tmp_path, tiny_tokenizer_path):
    size = Tokenizer.load(tiny_tokenizer_path).vocabulary_size
    to_hf(random_source(tiny_tokenizer_path, vocabulary_size=size + 24), tmp_path / "model-hf")
    with pytest.raises(ExportError, match="the model has rows for"):
        to_hf(random_source(tiny_tokenizer_path, vocabulary_size=size - 8), tmp_path / "small-hf")
