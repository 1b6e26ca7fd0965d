"""Tensor names: ours <-> Hugging Face's, and ours <-> llama.cpp's, as tables that are read both ways.

In comes a name and a layout, out goes the other side's name. A layout is a transformers architecture: `llama` has no
norm on queries and keys, `qwen3` has. A row per tensor of a block instead of a rule such as "put `model.` in front", so
that a reader sees what exists and a name that is not in the table is an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from megadec.common.errors import ExportError, suggest

Layout = Literal["llama", "qwen3"]
LAYOUTS: tuple[Layout, ...] = ("llama", "qwen3")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of tensor: `N` stands for the number of the block."""

    ours: str
    theirs: str
    layouts: tuple[Layout, ...] = LAYOUTS


ROWS: tuple[Row, ...] = (
    Row("embed_tokens.weight", "model.embed_tokens.weight"),
    Row("layers.N.input_layernorm.weight", "model.layers.N.input_layernorm.weight"),
    Row("layers.N.self_attn.q_proj.weight", "model.layers.N.self_attn.q_proj.weight"),
    Row("layers.N.self_attn.k_proj.weight", "model.layers.N.self_attn.k_proj.weight"),
    Row("layers.N.self_attn.v_proj.weight", "model.layers.N.self_attn.v_proj.weight"),
    Row("layers.N.self_attn.o_proj.weight", "model.layers.N.self_attn.o_proj.weight"),
    Row("layers.N.self_attn.q_norm.weight", "model.layers.N.self_attn.q_norm.weight", ("qwen3",)),
    Row("layers.N.self_attn.k_norm.weight", "model.layers.N.self_attn.k_norm.weight", ("qwen3",)),
    Row("layers.N.post_attention_layernorm.weight", "model.layers.N.post_attention_layernorm.weight"),
    Row("layers.N.mlp.gate_proj.weight", "model.layers.N.mlp.gate_proj.weight"),
    Row("layers.N.mlp.up_proj.weight", "model.layers.N.mlp.up_proj.weight"),
    Row("layers.N.mlp.down_proj.weight", "model.layers.N.mlp.down_proj.weight"),
    Row("norm.weight", "model.norm.weight"),
    Row("lm_head.weight", "lm_head.weight"),
    Row("score.weight", "score.weight"),
)

# Ours, and what a GGUF file calls it (gguf-py/gguf/constants.py). The layouts are those of ROWS.
LLAMA_CPP: dict[str, str] = {
    "embed_tokens.weight": "token_embd.weight",
    "layers.N.input_layernorm.weight": "blk.N.attn_norm.weight",
    "layers.N.self_attn.q_proj.weight": "blk.N.attn_q.weight",
    "layers.N.self_attn.k_proj.weight": "blk.N.attn_k.weight",
    "layers.N.self_attn.v_proj.weight": "blk.N.attn_v.weight",
    "layers.N.self_attn.o_proj.weight": "blk.N.attn_output.weight",
    "layers.N.self_attn.q_norm.weight": "blk.N.attn_q_norm.weight",
    "layers.N.self_attn.k_norm.weight": "blk.N.attn_k_norm.weight",
    "layers.N.post_attention_layernorm.weight": "blk.N.ffn_norm.weight",
    "layers.N.mlp.gate_proj.weight": "blk.N.ffn_gate.weight",
    "layers.N.mlp.up_proj.weight": "blk.N.ffn_up.weight",
    "layers.N.mlp.down_proj.weight": "blk.N.ffn_down.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}

_BLOCK = re.compile(r"(?:(?<=\blayers\.)|(?<=\bblk\.))(0|[1-9]\d*)(?=\.)")


def to_hugging_face(name: str, layout: Layout) -> str:
    """Our tensor name in Hugging Face's words. Raises ExportError for a name that the layout does not have."""
    return _translate(name, {row.ours: row.theirs for row in ROWS if layout in row.layouts}, layout)


def from_hugging_face(name: str, layout: Layout) -> str:
    """Hugging Face's tensor name in our words. Raises ExportError for a name that the layout does not have."""
    return _translate(name, {row.theirs: row.ours for row in ROWS if layout in row.layouts}, layout)


def to_llama_cpp(name: str, layout: Layout) -> str:
    """Our tensor name in a GGUF file's words. Raises ExportError for a name that the layout does not have."""
    return _translate(name, _llama_cpp(layout), layout)


def from_llama_cpp(name: str, layout: Layout) -> str:
    """A GGUF file's tensor name in our words. Raises ExportError for a name that the layout does not have."""
    return _translate(name, {theirs: ours for ours, theirs in _llama_cpp(layout).items()}, layout)


def _llama_cpp(layout: Layout) -> dict[str, str]:
    return {row.ours: LLAMA_CPP[row.ours] for row in ROWS if layout in row.layouts and row.ours in LLAMA_CPP}


def _translate(name: str, table: dict[str, str], layout: Layout) -> str:
    numbers = _BLOCK.findall(name)
    kind = _BLOCK.sub("N", name)
    other = table.get(kind)
    if other is None:
        raise ExportError(f"tensor {name!r} has no counterpart in the {layout} layout{suggest(kind, table)}")
    return other.replace(".N.", f".{numbers[0]}.") if numbers else other
