"""What a GGUF file says beside its tensors: the network's numbers and the vocabulary, as one table.

In come a shape and a tokenizer, out go keys and values (ggml-org/ggml, docs/gguf.md). Plain Python values, whose types
say how they are stored (int: uint32, float: float32), so that the table can be compared with what was read.
"""

from __future__ import annotations

from megadec.common.tokenizer import Kind, Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.export.read.names import Layout

Value = bool | int | float | str | list[str] | list[float] | list[int]

QUANTISATION_VERSION = 2
# llama.cpp's types of tokens.
TOKEN_TYPES: dict[Kind, int] = {"normal": 1, "unknown": 2, "control": 3, "unused": 5, "byte": 6}
# Below that of every piece, so that no text becomes a row that has no piece.
UNUSED_SCORE = -1e6


def fields_of(shape: DecoderShape, layout: Layout, tokenizer: Tokenizer, file_type: int, name: str) -> dict[str, Value]:
    """Every key of the file with its value. `file_type` is llama.cpp's number for the format of the matrices."""
    return {
        "general.architecture": layout,
        "general.type": "model",
        "general.name": name,
        "general.file_type": file_type,
        "general.quantization_version": QUANTISATION_VERSION,
        f"{layout}.vocab_size": shape.vocabulary_size,
        f"{layout}.context_length": shape.max_position_embeddings,
        f"{layout}.embedding_length": shape.hidden_size,
        f"{layout}.block_count": shape.layers,
        f"{layout}.feed_forward_length": shape.intermediate_size,
        f"{layout}.attention.head_count": shape.heads,
        f"{layout}.attention.head_count_kv": shape.kv_heads,
        f"{layout}.attention.key_length": shape.head_size,
        f"{layout}.attention.value_length": shape.head_size,
        f"{layout}.attention.layer_norm_rms_epsilon": float(shape.norm_eps),
        f"{layout}.rope.dimension_count": shape.head_size,
        f"{layout}.rope.freq_base": float(shape.rope_theta),
        **_vocabulary(tokenizer, shape.vocabulary_size),
    }


def _vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Value]:
    """The tokenizer, and a name for each row of the model that has no piece."""
    entries = [tokenizer.entry(i) for i in range(tokenizer.vocabulary_size)]
    spare = range(tokenizer.vocabulary_size, rows)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [*(entry.text for entry in entries), *(f"[PAD{i}]" for i in spare)],
        "tokenizer.ggml.scores": [*(float(entry.score) for entry in entries), *(UNUSED_SCORE for _ in spare)],
        "tokenizer.ggml.token_type": [
            *(TOKEN_TYPES[entry.kind] for entry in entries),
            *(TOKEN_TYPES["unused"] for _ in spare),
        ],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        "tokenizer.ggml.unknown_token_id": tokenizer.unk_id,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
    }
