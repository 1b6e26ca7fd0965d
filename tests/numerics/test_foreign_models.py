"""A folder of other tools is the model that transformers computes, in every format, or is refused by its key."""

import json
from pathlib import Path

import pytest
import torch

from megadec.export.commands import convert
from megadec.export.read.load import load_decoder
from tests.support.foreign_models import READ, make_foreign

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
