"""What our decoder's tensors and fields are called in other formats: two tables, each read both ways.

A layout is a transformers architecture: `llama` has no norm on queries and keys, `qwen3` has. A line per tensor instead
of a rule such as "put `model.` in front", so that a reader sees what exists and an unknown name is an error.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from megadec.common.errors import ExportError, suggest
from megadec.decoder.shape import DecoderShape

Layout = Literal["llama", "qwen3"]
LAYOUTS: tuple[Layout, ...] = ("llama", "qwen3")
Format = Literal["ours", "hugging_face", "gguf"]


class Names(NamedTuple):
    """One thing in each format's words; None where a format does not have it."""

    ours: str
    hugging_face: str
    gguf: str | None = None
    layouts: tuple[Layout, ...] = LAYOUTS


# `N` stands for the number of the block. GGUF's names: gguf-py/gguf/constants.py.
TENSORS = (
    Names("embed_tokens.weight", "model.embed_tokens.weight", "token_embd.weight"),
    Names("layers.N.input_layernorm.weight", "model.layers.N.input_layernorm.weight", "blk.N.attn_norm.weight"),
    Names("layers.N.self_attn.q_proj.weight", "model.layers.N.self_attn.q_proj.weight", "blk.N.attn_q.weight"),
    Names("layers.N.self_attn.k_proj.weight", "model.layers.N.self_attn.k_proj.weight", "blk.N.attn_k.weight"),
    Names("layers.N.self_attn.v_proj.weight", "model.layers.N.self_attn.v_proj.weight", "blk.N.attn_v.weight"),
    Names("layers.N.self_attn.o_proj.weight", "model.layers.N.self_attn.o_proj.weight", "blk.N.attn_output.weight"),
    Names(
        "layers.N.self_attn.q_norm.weight",
        "model.layers.N.self_attn.q_norm.weight",
        "blk.N.attn_q_norm.weight",
        ("qwen3",),
    ),
    Names(
        "layers.N.self_attn.k_norm.weight",
        "model.layers.N.self_attn.k_norm.weight",
        "blk.N.attn_k_norm.weight",
        ("qwen3",),
    ),
    Names(
        "layers.N.post_attention_layernorm.weight",
        "model.layers.N.post_attention_layernorm.weight",
        "blk.N.ffn_norm.weight",
    ),
    Names("layers.N.mlp.gate_proj.weight", "model.layers.N.mlp.gate_proj.weight", "blk.N.ffn_gate.weight"),
    Names("layers.N.mlp.up_proj.weight", "model.layers.N.mlp.up_proj.weight", "blk.N.ffn_up.weight"),
    Names("layers.N.mlp.down_proj.weight", "model.layers.N.mlp.down_proj.weight", "blk.N.ffn_down.weight"),
    Names("norm.weight", "model.norm.weight", "output_norm.weight"),
    Names("lm_head.weight", "lm_head.weight", "output.weight"),
    Names("score.weight", "score.weight"),
)

# The fields of DecoderShape but `qk_norm`, which is the layout. GGUF's keys stand behind the layout's name.
FIELDS = (
    Names("vocabulary_size", "vocab_size", "vocab_size"),
    Names("hidden_size", "hidden_size", "embedding_length"),
    Names("intermediate_size", "intermediate_size", "feed_forward_length"),
    Names("layers", "num_hidden_layers", "block_count"),
    Names("heads", "num_attention_heads", "attention.head_count"),
    Names("kv_heads", "num_key_value_heads", "attention.head_count_kv"),
    Names("head_size", "head_dim", "attention.key_length"),
    Names("max_position_embeddings", "max_position_embeddings", "context_length"),
    Names("norm_eps", "rms_norm_eps", "attention.layer_norm_rms_epsilon"),
    Names("rope_theta", "rope_theta", "rope.freq_base"),
    Names("tied_embeddings", "tie_word_embeddings"),
    Names("initializer_std", "initializer_range"),
)

_BLOCK = re.compile(r"(?:(?<=\blayers\.)|(?<=\bblk\.))(0|[1-9]\d*)(?=\.)")


def layout_of(shape: DecoderShape) -> Layout:
    """The layout that can express the shape: qwen3 where queries and keys are normalized, else llama."""
    return "qwen3" if shape.qk_norm else "llama"


def rename(name: str, layout: Layout, *, of: Format = "ours", to: Format = "ours") -> str:
    """A tensor's name in the words of another format. Raises ExportError for one that the layout does not have."""
    table = {getattr(row, of): getattr(row, to) for row in TENSORS if layout in row.layouts and getattr(row, of)}
    kind, blocks = _BLOCK.sub("N", name), _BLOCK.findall(name)
    other: str | None = table.get(kind)
    if other is None:
        raise ExportError(f"tensor {name!r} has no counterpart in the {layout} layout{suggest(kind, table)}")
    return other.replace(".N.", f".{blocks[0]}.") if blocks else other
