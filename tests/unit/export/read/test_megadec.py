"""The megadec model folder keeps every bit, and notices a changed one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from megadec.common.errors import ExportError
from megadec.export.read.megadec import to_megadec
from megadec.export.read.model import open_model
from tests.support.sources import random_source


@pytest.fixture
def source(tiny_tokenizer_path):
    return random_source(tiny_tokenizer_path)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("qk_norm", [True, False])
def test_every_tensor_comes_back_bit_for_bit(tmp_path, tiny_tokenizer_path, tied, qk_norm):
    source = random_source(tiny_tokenizer_path, tied_embeddings=tied, qk_norm=qk_norm)
    to_megadec(source, tmp_path / "m")
    found = open_model(tmp_path / "m")
    assert (found.kind, found.shape, found.step, found.tokens) == ("megadec", source.shape, 12, 3456)
    assert found.dtype == torch.float32
    assert all(torch.equal(found.tensor(name), source.tensor(name)) for name in source.names())


def test_the_weights_of_a_bfloat16_run_stay_float32_unless_asked(tmp_path, source):
    source = dataclasses.replace(source, dtype=torch.bfloat16)
    to_megadec(source, tmp_path / "masters")
    to_megadec(source, tmp_path / "small", dtype=torch.bfloat16)
    assert open_model(tmp_path / "masters").dtype == torch.float32
    assert open_model(tmp_path / "small").dtype == torch.bfloat16
    to_megadec(open_model(tmp_path / "small"), tmp_path / "again")
    assert (tmp_path / "again/model.safetensors").read_bytes() == (tmp_path / "small/model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["model.safetensors", "shape.json", "tokenizer.model"])
def test_a_changed_file_is_refused_by_name(tmp_path, source, name):
    to_megadec(source, tmp_path / "m")
    data = bytearray((tmp_path / "m" / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / "m" / name).write_bytes(bytes(data))
    with pytest.raises(ExportError, match=f"{name} was changed"):
        open_model(tmp_path / "m")
