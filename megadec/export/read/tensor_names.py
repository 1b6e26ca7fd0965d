"""What our decoder's tensors and fields are called in other formats: two tables, each read both ways.

A layout is a transformers architecture: `qwen3` has norms on queries and keys, `qwen2` biases on queries, keys and
values, `llama` neither, or biases on all four products of attention. A line per tensor instead of a rule such as "put
`model.` in front", so that a reader sees what exists and an unknown name is an error.
"""

import re
from typing import Literal, NamedTuple

from megadec.common.errors import ExportError, suggest
from megadec.decoder.shape import DecoderShape

Layout = Literal["llama", "qwen2", "qwen3"]
LAYOUTS: tuple[Layout, ...] = ("llama", "qwen2", "qwen3")
Format = Literal["ours", "hugging_face", "gguf"]


class Names(NamedTuple):
    """One thing in each format's words; None where a format does not have it."""

    ours: str
    hugging_face: str
    gguf: str | None = None


# `N` stands for the number of the block; behind every name stands `.weight`, behind those of BIASED also `.bias`.
# GGUF's names: gguf-py/gguf/constants.py.
TENSORS = (
    Names("embed_tokens", "model.embed_tokens", "token_embd"),
    Names("layers.N.input_layernorm", "model.layers.N.input_layernorm", "blk.N.attn_norm"),
    Names("layers.N.self_attn.q_proj", "model.layers.N.self_attn.q_proj", "blk.N.attn_q"),
    Names("layers.N.self_attn.k_proj", "model.layers.N.self_attn.k_proj", "blk.N.attn_k"),
    Names("layers.N.self_attn.v_proj", "model.layers.N.self_attn.v_proj", "blk.N.attn_v"),
    Names("layers.N.self_attn.o_proj", "model.layers.N.self_attn.o_proj", "blk.N.attn_output"),
    Names("layers.N.self_attn.q_norm", "model.layers.N.self_attn.q_norm", "blk.N.attn_q_norm"),
    Names("layers.N.self_attn.k_norm", "model.layers.N.self_attn.k_norm", "blk.N.attn_k_norm"),
    Names("layers.N.post_attention_layernorm", "model.layers.N.post_attention_layernorm", "blk.N.ffn_norm"),
    Names("layers.N.mlp.gate_proj", "model.layers.N.mlp.gate_proj", "blk.N.ffn_gate"),
    Names("layers.N.mlp.up_proj", "model.layers.N.mlp.up_proj", "blk.N.ffn_up"),
    Names("layers.N.mlp.down_proj", "model.layers.N.mlp.down_proj", "blk.N.ffn_down"),
    Names("norm", "model.norm", "output_norm"),
    Names("lm_head", "lm_head", "output"),
    Names("score", "score"),
)

BIASED = ("q_proj", "k_proj", "v_proj", "o_proj")

# The fields of DecoderShape but `qk_norm` and `attention_bias`, which are the layout, and `rope_scaling`, which is no
# number. GGUF's keys stand behind the layout's name.
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
    """The layout that can express the shape."""
    if shape.qk_norm:
        return "qwen3"
    return "qwen2" if shape.attention_bias == "qkv" else "llama"


def rename(name: str, *, of: Format = "ours", to: Format = "ours") -> str:
    """A tensor's name in the words of another format. Raises ExportError for one that a format does not have."""
    table = {
        f"{one}.{part}": f"{other}.{part}"
        for row in TENSORS
        for part in ("weight", "bias")
        if (one := getattr(row, of)) and (other := getattr(row, to)) and (part == "weight" or row.ours.endswith(BIASED))
    }
    kind, blocks = _BLOCK.sub("N", name), _BLOCK.findall(name)
    other = table.get(kind)
    if other is None:
        raise ExportError(f"tensor {name!r} has no counterpart in {to.replace('_', ' ')}{suggest(kind, table)}")
    return other.replace(".N.", f".{blocks[0]}.") if blocks else other
