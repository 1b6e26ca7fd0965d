"""Every exported folder can be served, found by its files alone, and says the same."""

import shutil
from pathlib import Path

import pytest
import torch

from megadec.common.errors import ConfigError, ModelFolderError
from megadec.common.files import write_json
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.generate import generate_text
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.export.commands import convert
from megadec.export.read.huggingface_files import write_model
from megadec.export.read.load import load_source
from megadec.export.read.megadec import to_megadec
from megadec.export.read.source import ModelSource
from megadec.serve.load import open_classifier, open_language_model
from tests.support import PROJECT
from tests.support.sources import random_classifier, random_source

SIZES = {"hidden_size": 64, "max_position_embeddings": 128}
ZH_8K = PROJECT / "tokenizer" / "zh_8k" / "tokenizer.model"
HOW = Sampling(30, 1.0, seed=3)


def export(kind: str, source: ModelSource, folder: Path) -> None:
    """A Hugging Face folder without asking transformers what it thinks of it; ONNX and GGUF by the command."""
    if kind == "megadec":
        to_megadec(source, folder)
    elif kind == "huggingface":
        folder.mkdir()
        write_model(source, folder, torch.float32, Tokenizer.load(source.tokenizer_path), 2**30)
        shutil.copyfile(source.tokenizer_path, folder / "tokenizer.model")
        write_json(folder / "tokenizer_config.json", {"chat_template": "{{ messages[0].content }}"})
    else:
        pytest.importorskip({"gguf": "cyllama", "onnx": "onnxruntime"}[kind])
        to_megadec(source, folder.with_name("before"))
        convert(["--input", str(folder.with_name("before")), "--to", kind, "--output", str(folder)])


@pytest.mark.parametrize("kind", ["megadec", "huggingface", "gguf", "onnx"])
def test_each_format_is_found_and_gives_the_same_text(tmp_path: Path, tiny_tokenizer_path: Path, kind: str) -> None:
    source = random_source(tiny_tokenizer_path, **SIZES)
    export(kind, source, tmp_path / "model")
    served = open_language_model(tmp_path / "model")
    assert (served.kind, served.name) == (kind, "model")
    assert served.model.max_position_embeddings == 128
    assert served.template.name == ("own" if kind == "huggingface" else "plain")
    decoder, tokenizer = load_source(source)
    ours = PagedDecoder(decoder)
    for prompt in ("", "清晨，小林在河边", "𠮷"):
        wanted = "".join(generate_text(ours, tokenizer, prompt, HOW))
        assert "".join(generate_text(served.model, served.tokenizer, prompt, HOW)) == wanted
    if kind in ("gguf", "onnx"):
        check_is_compared(tmp_path / "model", kind, tiny_tokenizer_path)


def check_is_compared(folder: Path, kind: str, tokenizer_path: Path) -> None:
    """A folder that a runtime loads without us is what its export wrote, or is refused."""
    for options in ({"device": "cuda"}, {"dtype": torch.bfloat16}):
        with pytest.raises(ConfigError, match=rf"--d\w+ \w+: .* is {kind.upper()}, which runs on the CPU"):
            open_language_model(folder, **options)
    weights = max(folder.glob("model.*"), key=lambda file: file.stat().st_size)
    content = bytearray(weights.read_bytes())
    content[-40] ^= 1
    for file, wrong in ((weights, bytes(content)), (folder / "tokenizer.model", ZH_8K.read_bytes())):
        right = file.read_bytes()
        file.write_bytes(wrong)
        with pytest.raises(ModelFolderError, match=rf"{file.name} (was changed|has \d+ bytes)"):
            open_language_model(folder)
        if file is not weights and kind == "gguf":  # as one that others made, which states nothing
            (folder / "megadec.json").rename(folder / "stated")
            with pytest.raises(ModelFolderError, match=r"gives other ids than the vocabulary in model\.gguf"):
                open_language_model(folder)
            (folder / "stated").rename(folder / "megadec.json")
        file.write_bytes(right)
    assert open_language_model(folder).kind == kind
    if kind == "onnx":
        (folder / "megadec.json").unlink()
        with pytest.raises(ModelFolderError, match=r"has no megadec\.json"):
            open_language_model(folder)


def test_a_classifier_gives_the_same_labels_in_onnxruntime(tmp_path: Path, tiny_tokenizer_path: Path) -> None:
    source = random_classifier(tiny_tokenizer_path, **SIZES)
    export("onnx", source, tmp_path / "labels")
    texts = ["小林在河边种下了一棵柿子树", "老周"]
    ours, theirs = (open_classifier(tmp_path / name).classifier.classify(texts) for name in ("before", "labels"))
    for one, wanted in zip(theirs, ours, strict=True):
        assert list(one) == ["体育", "财经", "房产"]
        assert one == pytest.approx(wanted, abs=1e-4)


def test_a_model_in_the_place_of_the_other_and_a_path_that_is_no_model_are_refused(
    tmp_path: Path, tiny_tokenizer_path: Path
) -> None:
    to_megadec(random_classifier(tiny_tokenizer_path), tmp_path / "labels")
    to_megadec(random_source(tiny_tokenizer_path), tmp_path / "words")
    for open_one, name, words in (
        (open_language_model, "labels", "is a model for classification; a classifier is given as --classifier"),
        (open_classifier, "words", "not a classifier"),
        (open_language_model, "nothing", "is not a folder"),
        (open_language_model, "", "holds no model"),
    ):
        with pytest.raises(ConfigError, match=words):
            open_one(tmp_path / name)
