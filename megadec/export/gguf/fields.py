"""What a GGUF file says beside its tensors: the network's numbers and the vocabulary (ggml-org/ggml, docs/gguf.md).

Plain Python values, whose types say how they are stored (int: uint32, float: float32) and which are rounded as they are
stored, so that they can be compared with what was read.
"""

import math
from dataclasses import replace

import numpy as np

from megadec.common.errors import ExportError
from megadec.common.tokenizer import Tokenizer
from megadec.common.tokenizer_files import steps_of
from megadec.common.vocabularies import JsonPieces, Kind
from megadec.decoder.rope_scaling import Llama3Scaling, RopeScaling, YarnScaling, yarn_magnitude
from megadec.decoder.shape import DecoderShape
from megadec.export.read.source import ModelSource
from megadec.export.read.tensor_names import FIELDS, layout_of

Value = bool | int | float | str | list[str] | list[float] | list[int]

QUANTIZATION_VERSION = 2
# llama.cpp's types of tokens.
TOKEN_TYPES: dict[Kind, int] = {"normal": 1, "unknown": 2, "control": 3, "user_defined": 4, "unused": 5, "byte": 6}
# Below that of every piece, so that no text becomes a row that has no piece.
UNUSED_SCORE = -1e6

# The regular expression by which byte-level BPE first cuts a text -> llama.cpp's name of it. GPT-2's is in the library.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {
    None: "gpt-2",
    rf"{_WORDS}|\p{{N}}|{_REST}": "qwen2",
    rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}": "llama-bpe",
}
# Qwen's; llama.cpp does without it, so its ids are equal for texts that are composed already, as almost all are.
NFC = {"type": "NFC"}


def fields_of(source: ModelSource, tokenizer: Tokenizer, file_type: int) -> dict[str, Value]:
    """Every key of the file with its value. `file_type` is llama.cpp's number for the format of the matrices."""
    shape, layout = source.shape, layout_of(source.shape)
    shape = replace(shape, norm_eps=_float32(shape.norm_eps), rope_theta=_float32(shape.rope_theta))
    return {
        "general.architecture": layout,
        "general.type": "model",
        "general.name": str(source.provenance["name"]),
        "general.file_type": file_type,
        "general.quantization_version": QUANTIZATION_VERSION,
        **{f"{layout}.{row.gguf}": getattr(shape, row.ours) for row in FIELDS if row.gguf is not None},
        f"{layout}.attention.value_length": shape.head_size,
        f"{layout}.rope.dimension_count": shape.head_size,
        **{f"{layout}.rope.scaling.{key}": value for key, value in _scaling(shape.rope_scaling).items()},
        **_vocabulary(tokenizer, shape.vocabulary_size),
    }


def derived_tensors(shape: DecoderShape) -> dict[str, np.ndarray]:
    """What the file holds beside the model's own tensors, by name, float32: llama3's divisors of RoPE's frequencies."""
    if not isinstance(shape.rope_scaling, Llama3Scaling):
        return {}
    plain = [shape.rope_theta ** -(index / shape.head_size) for index in range(0, shape.head_size, 2)]
    scaled = shape.rope_scaling.frequencies(plain, shape.rope_theta)
    divisors = [before / after for before, after in zip(plain, scaled, strict=True)]
    return {"rope_freqs.weight": np.array(divisors, np.float32)}


def _scaling(scaling: RopeScaling | None) -> dict[str, Value]:
    """What stands behind `rope.scaling.`; of llama3 nothing, which is a tensor: `derived_tensors`."""
    if scaling is None or isinstance(scaling, Llama3Scaling):
        return {}
    keys: dict[str, Value] = {"type": scaling.rope_type, "factor": _float32(scaling.factor)}
    if isinstance(scaling, YarnScaling):
        keys["original_context_length"] = scaling.original_max_position_embeddings
        keys["yarn_beta_fast"], keys["yarn_beta_slow"] = _float32(scaling.beta_fast), _float32(scaling.beta_slow)
        # llama.cpp multiplies it with what the paper has.
        if not math.isclose(share := scaling.magnitude / yarn_magnitude(scaling.factor), 1.0):
            keys["attn_factor"] = _float32(share)
    return keys


def _float32(value: float) -> float:
    return float(np.float32(value))


def _vocabulary(tokenizer: Tokenizer, rows: int) -> dict[str, Value]:
    """The tokenizer, and a name for each row of the model that has no piece."""
    entries = [tokenizer.entry(i) for i in range(tokenizer.vocabulary_size)]
    spare = range(tokenizer.vocabulary_size, rows)
    unknown = {"tokenizer.ggml.unknown_token_id": tokenizer.unk_id} if tokenizer.unk_id >= 0 else {}
    # llama.cpp knows a second end by this key, and more by their names; which of them it ends at is compared.
    others = [one for one in tokenizer.end_ids if one != tokenizer.eos_id]
    return {
        **_pieces(tokenizer),
        "tokenizer.ggml.tokens": [*(entry.text for entry in entries), *(f"[PAD{i}]" for i in spare)],
        "tokenizer.ggml.scores": [*(_float32(entry.score) for entry in entries), *(UNUSED_SCORE for _ in spare)],
        "tokenizer.ggml.token_type": [
            *(TOKEN_TYPES[entry.kind] for entry in entries),
            *(TOKEN_TYPES["unused"] for _ in spare),
        ],
        "tokenizer.ggml.bos_token_id": tokenizer.bos_id,
        "tokenizer.ggml.eos_token_id": tokenizer.eos_id,
        **({"tokenizer.ggml.eot_token_id": others[0]} if others else {}),
        **unknown,
        "tokenizer.ggml.add_bos_token": bool(tokenizer.prefix_ids),
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        **_templates(tokenizer),
    }


def _pieces(tokenizer: Tokenizer) -> dict[str, Value]:
    """How text is cut into pieces. Raises ExportError for a way that llama.cpp has no name for."""
    vocabulary = tokenizer.vocabulary
    if not isinstance(vocabulary, JsonPieces) or not vocabulary.byte_level:
        return {"tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default"}
    if vocabulary.normalizer not in (None, NFC):
        raise ExportError(f"{tokenizer.path}: normalizer={vocabulary.normalizer!r}; llama.cpp has none")
    *cuts, last = steps_of(vocabulary.pre_tokenizer, "pretokenizers")
    regexes = [None] * bool(last.get("use_regex", True)) + [cut.get("pattern", {}).get("Regex") for cut in cuts]
    known = PRE_TOKENIZERS.get(regexes[0]) if len(regexes) == 1 else None
    if known is None:
        raise ExportError(
            f"{tokenizer.path}: pre_tokenizer={dict(vocabulary.pre_tokenizer)!r}; llama.cpp has a name for those of "
            f"{', '.join(PRE_TOKENIZERS.values())} only; convert it --to hf or --to onnx"
        )
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": known, "tokenizer.ggml.merges": vocabulary.merges}


def _templates(tokenizer: Tokenizer) -> dict[str, Value]:
    """The chat templates; the usual one has no name."""
    others = {name: text for name, text in tokenizer.templates.items() if name != "default"}
    default = tokenizer.templates.get("default")
    return {
        **({} if default is None else {"tokenizer.chat_template": default}),
        **({"tokenizer.chat_templates": sorted(others)} if others else {}),
        **{f"tokenizer.chat_template.{name}": text for name, text in others.items()},
    }
