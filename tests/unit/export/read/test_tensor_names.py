"""The tables of names, read both ways."""

import dataclasses

import pytest

from megadec.common.errors import ExportError
from megadec.decoder.flops import parameter_table
from megadec.decoder.shape import DecoderShape
from megadec.export.read.tensor_names import FIELDS, LAYOUTS, TENSORS, layout_of, rename
from tests.support.sources import TINY_SHAPE

SHAPES = {
    "llama": {"qk_norm": False, "attention_bias": "qkvo"},
    "qwen2": {"qk_norm": False, "attention_bias": "qkv"},
    "qwen3": {"qk_norm": True},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("other", "classes"), [("hugging_face", None), ("hugging_face", 3), ("gguf", None)])
def test_every_tensor_of_a_model_has_another_name_and_comes_back(layout, tied, other, classes):
    shape = DecoderShape.from_mapping({**TINY_SHAPE, "layers": 12, **SHAPES[layout], "tied_embeddings": tied})
    assert layout_of(shape) == layout
    ours = list(parameter_table(shape, classes))
    theirs = [rename(name, to=other) for name in ours]
    assert len(set(theirs)) == len(ours)
    assert {*ours} & {*theirs} <= {"lm_head.weight", "score.weight"}
    assert [rename(name, of=other) for name in theirs] == ours


def test_the_names_of_a_gguf_file_are_those_that_its_package_knows():
    constants = pytest.importorskip("gguf").constants
    names = {row.gguf.replace("blk.N.", "blk.{bid}.") for row in TENSORS if row.gguf is not None}
    norms = {"blk.{bid}.attn_q_norm", "blk.{bid}.attn_k_norm"}
    for arch, others in (("QWEN3", set()), ("QWEN2", norms), ("LLAMA", norms)):
        known = {constants.TENSOR_NAMES[kind] for kind in constants.MODEL_TENSORS[constants.MODEL_ARCH[arch]]}
        assert names - known == others


def test_every_field_of_a_shape_but_the_layout_has_a_name_in_a_config():
    fields = {field.name for field in dataclasses.fields(DecoderShape)}
    assert {row.ours for row in FIELDS} == fields - {"qk_norm", "attention_bias", "rope_scaling"}
    for table in (TENSORS, FIELDS):
        for names in zip(*(row[:3] for row in table), strict=True):
            written = [name for name in names if name is not None]
            assert len(set(written)) == len(written)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("layers.0.self_attn.r_norm.weight", "ours"),
        ("model.layers.1.mlp.up_proj.bias", "hugging_face"),
        ("model.layers.x.mlp.up_proj.weight", "hugging_face"),
        ("transformer.wte.weight", "hugging_face"),
        ("blk.1.attn_q_norm.bias", "gguf"),
    ],
)
def test_a_name_that_a_format_does_not_have_is_refused(name, other):
    with pytest.raises(ExportError, match=f"'{name}' has no counterpart in ours"):
        rename(name, of=other)
    with pytest.raises(ExportError, match="has no counterpart in gguf"):
        rename("score.weight", to="gguf")
