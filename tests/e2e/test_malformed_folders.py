"""Folders of others in which something is not what it should be: every command says so in one line, with status 2."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.cli import run_verb
from megadec.common.errors import REQUEST_WRONG, MegadecError, run_main
from megadec.common.files import write_json
from megadec.common.tokenizer import Tokenizer
from megadec.engine.checkpoint.manifest import file_hashes
from megadec.export.read.huggingface_files import write_model
from megadec.export.read.source import ModelSource, statement
from megadec.serve.load import is_classifier, open_classifier, open_language_model
from tests.support.sources import random_classifier, random_source

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a value can be instead of what it should be.
VALUES: tuple[Any, ...] = (True, -1, 10**400, float("nan"), "7", "\ud800", [], [1], {}, {"a": {}})


def write_folder(source: ModelSource, folder: Path) -> Path:
    """A Hugging Face folder in several files of weights, with all that may stand beside them."""
    folder.mkdir()
    tokenizer = Tokenizer.load(source.tokenizer_path)
    write_model(source, folder, torch.float32, tokenizer, 100_000)
    shutil.copyfile(source.tokenizer_path, folder / "tokenizer.model")
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    flags = {"add_bos_token": True, "add_eos_token": False, "add_prefix_space": False, "legacy": False}
    template = {"chat_template": "{{ messages[0].content }}"}
    write_json(folder / "tokenizer_config.json", {**named, **flags, **template})
    write_json(folder / "megadec.json", statement(source, tokenizer, "megadec-export"))
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("foreign")
    made = {"words": random_source(tiny_tokenizer_path), "labels": random_classifier(tiny_tokenizer_path)}
    return {name: write_folder(source, folder / name) for name, source in made.items()}


@pytest.fixture
def folder(models: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(models["words"], tmp_path / "model")


def changed(value: Any) -> list[Any]:
    """Copies of a JSON value with one value in it replaced, at every place."""
    found: list[Any] = list(VALUES)
    if isinstance(value, dict):
        for key, inner in value.items():
            found += [{**value, key: other} for other in changed(inner)]
    elif isinstance(value, list) and value:
        found += [[other, *value[1:]] for other in changed(value[0])]
    return found


MORE_KEYS: dict[str, dict[str, Any]] = {
    "config.json": {
        "id2label": {"0": "a", "1": "b"},
        "num_labels": 2,
        "layer_types": ["full_attention"],
        "problem_type": "single_label_classification",
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 1, "original_max_position_embeddings": 8},
        "sliding_window": 5,
        "quantization_config": {"bits": 4},
        "eos_token_id": [2],
    },
    "tokenizer_config.json": {
        "chat_template": [{"name": "default", "template": "x"}],
        "added_tokens_decoder": {"0": {"content": "a"}},
    },
    "megadec.json": {"files": {"config.json": {"bytes": 1, "sha256": "0"}}},
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("words", "config.json"),
        ("labels", "config.json"),
        ("words", INDEX),
        ("words", "megadec.json"),
        ("labels", "megadec.json"),
        ("words", "generation_config.json"),
        ("words", "tokenizer_config.json"),
    ],
)
def test_no_value_in_a_file_is_more_than_one_error(
    models: dict[str, Path], tmp_path: Path, kind: str, name: str
) -> None:
    file = shutil.copytree(models[kind], tmp_path / "model") / name
    said = json.loads(file.read_text(encoding="utf-8"))
    if name == INDEX:
        said["weight_map"] = dict(list(said["weight_map"].items())[:2])
    more = [{**said, key: one} for key, value in MORE_KEYS.get(name, {}).items() for one in changed(value)]
    for one in [*changed(said), *more][:: 1 if (kind, name) == ("words", "config.json") else 3]:
        file.write_text(json.dumps(one), encoding="utf-8")
        try:
            if is_classifier(file.parent):
                open_classifier(file.parent)
            else:
                open_language_model(file.parent)
        except MegadecError as error:
            assert error.exit_status == REQUEST_WRONG, (one, error)  # noqa: PT017 (most are taken as they are)


@pytest.mark.parametrize("content", [b"\xff", b"{% for %}", b"{{ " + b"(" * 5000 + b")" * 5000 + b" }}"])
def test_a_chat_template_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "chat_template.jinja").write_bytes(content)
    with pytest.raises(MegadecError, match="chat_template"):
        open_language_model(folder)


def header(**changes: Any) -> bytes:
    """A file of safetensors with one tensor of four numbers, in which something is changed."""
    tensor = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}
    content = json.dumps({"model.norm.weight": tensor}).encode()
    return struct.pack("<Q", len(content)) + content + bytes(16)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x" * 7,
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 5) + b"[[[[[",
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"{}",
        header(),
        header(shape=[-4]),
        header(shape=[2**62, 2**62]),
        header(shape="4"),
        header(shape=[0, 2**62], data_offsets=[0, 0]),
        header(data_offsets=[0, 10**9]),
        header(data_offsets=[-16, 0]),
        header(dtype="I64", shape=[2]),
        header(dtype="nothing"),
        header()[:-3],
    ],
)
def test_a_file_that_is_no_whole_file_of_weights_is_refused(folder: Path, content: bytes) -> None:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(MegadecError) as refused:
        open_language_model(folder)
    assert refused.value.exit_status == REQUEST_WRONG


def rewritten(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / name
        write_json(file, {**json.loads(file.read_text(encoding="utf-8")), **changes})

    return change


def filled(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def with_value(value: float) -> Callable[[Path], None]:
    """One number of the weights is another, in a folder that states no hashes."""

    def change(folder: Path) -> None:
        file = max(folder.glob("*.safetensors"))
        content = bytearray(file.read_bytes())
        content[-4:] = struct.pack("<f", value)
        file.write_bytes(content)

    return change


def flipped(folder: Path) -> None:
    """A bit of the weights of an export, which states what they were."""
    write_json(
        folder / "megadec.json",
        {**json.loads((folder / "megadec.json").read_text()), "files": file_hashes(folder.glob("model*"))},
    )
    file = max(folder.glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (filled("config.json", "[]"), "config.json: [] is not an object"),
        (filled("config.json", "[" * 100_000), "config.json is not read: its brackets are nested too deeply"),
        (filled("config.json", '{"hidden_size": ' + "9" * 5000 + "}"), "config.json is not read"),
        (rewritten("config.json", model_type=["llama"]), "config.json: model_type=['llama'] is not a text"),
        (rewritten("config.json", num_hidden_layers=10**7), "10000000 layers are stated; the weights are 24 tensors"),
        (rewritten("config.json", num_attention_heads="4"), "num_attention_heads='4' is not a whole number"),
        (rewritten("config.json", hidden_size=-48), "-48"),
        (rewritten("config.json", model_type="x" * 10**6), "model_type='xxx"),
        (rewritten(INDEX, weight_map={"a": "../outside.safetensors"}), "'../outside.safetensors', no file of this"),
        (rewritten(INDEX, weight_map={"a": "/etc/passwd"}), "'/etc/passwd', no file of this folder"),
        (rewritten("megadec.json", tokenizer={"sha256": "0" * 64}), "tokenizer.model has sha256"),
        (with_value(float("nan")), "holds a value that is infinite or not a number"),
        (with_value(float("inf")), "holds a value that is infinite or not a number"),
        (flipped, "safetensors was changed: its hash is not the one in"),
    ],
)
def test_every_command_says_in_one_line_what_is_wrong_with_a_folder(
    folder: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], words: str
) -> None:
    damage(folder)
    output = folder.with_name("output")
    for verb in (
        ["convert", "--input", folder, "--to", "megadec", "--output", output],
        ["evaluate", "--model", folder, "--data", tiny_shards],
        ["generate", "--model", folder, "--prompt", "一"],
        ["serve", "--model", folder, "--port", "0"],
    ):
        with pytest.raises(SystemExit) as ended:
            run_main(run_verb, list(map(str, verb)))
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert (ended.value.code, words in line) == (REQUEST_WRONG, True), line
        assert len(line) < 5000
    assert not output.exists()
