"""The table of tensor names, read both ways."""

from __future__ import annotations

import pytest

from megadec.common.errors import ExportError
from megadec.decoder.shape import DecoderShape
from megadec.export.read.names import (
    LAYOUTS,
    LLAMA_CPP,
    ROWS,
    from_hugging_face,
    from_llama_cpp,
    to_hugging_face,
    to_llama_cpp,
)
from megadec.export.read.source import tensor_shapes
from tests.support.sources import TINY_SHAPE


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_of_a_decoder_has_another_name_and_comes_back(layout, tied):
    shape = DecoderShape.from_mapping(
        {**TINY_SHAPE, "layers": 12, "qk_norm": layout == "qwen3", "tied_embeddings": tied}
    )
    ours = list(tensor_shapes(shape))
    theirs = [to_hugging_face(name, layout) for name in ours]
    assert len(set(theirs)) == len(ours) == 3 + (11 if layout == "qwen3" else 9) * 12 - tied
    assert [from_hugging_face(name, layout) for name in theirs] == ours


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_a_classifier_has_another_name_or_that_of_its_score(layout):
    shape = DecoderShape.from_mapping({**TINY_SHAPE, "qk_norm": layout == "qwen3"})
    ours = list(tensor_shapes(shape, classes=3))
    theirs = [to_hugging_face(name, layout) for name in ours]
    assert {*ours} & {*theirs} == {"score.weight"}
    assert [from_hugging_face(name, layout) for name in theirs] == ours


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_tensor_of_a_decoder_has_a_name_in_a_gguf_file_and_comes_back(layout, tied):
    shape = DecoderShape.from_mapping(
        {**TINY_SHAPE, "layers": 12, "qk_norm": layout == "qwen3", "tied_embeddings": tied}
    )
    ours = list(tensor_shapes(shape))
    theirs = [to_llama_cpp(name, layout) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert [from_llama_cpp(name, layout) for name in theirs] == ours


def test_the_names_of_a_gguf_file_are_those_that_its_package_knows():
    constants = pytest.importorskip("gguf").constants
    for layout, arch in (("llama", constants.MODEL_ARCH.LLAMA), ("qwen3", constants.MODEL_ARCH.QWEN3)):
        known = {constants.TENSOR_NAMES[kind] for kind in constants.MODEL_TENSORS[arch]}
        for ours in LLAMA_CPP:
            if layout == "qwen3" or not ours.endswith(("q_norm.weight", "k_norm.weight")):
                name = to_llama_cpp(ours.replace(".N.", ".3."), layout)
                assert name.removesuffix(".weight").replace("blk.3.", "blk.{bid}.") in known


def test_no_name_stands_twice_in_the_table():
    assert len({row.ours for row in ROWS}) == len({row.theirs for row in ROWS}) == len(ROWS)


def test_the_llama_layout_has_no_norms_of_queries():
    with pytest.raises(ExportError, match=r"'layers.0.self_attn.q_norm.weight' has no counterpart in the llama layout"):
        to_hugging_face("layers.0.self_attn.q_norm.weight", "llama")


@pytest.mark.parametrize(
    "name", ["model.layers.1.self_attn.q_proj.bias", "model.layers.x.mlp.up_proj.weight", "transformer.wte.weight"]
)
def test_a_name_that_is_not_in_the_table_is_refused(name):
    with pytest.raises(ExportError, match="has no counterpart"):
        from_hugging_face(name, "llama")
