"""A Hugging Face folder's weights and configuration, written and read as plain files.

Transformers is not needed here, so that reading an export costs no import of it; huggingface/export.py proves that it
agrees. RoPE's base stands twice in the config.json that we write, as `rope_parameters` (transformers 5) and as
`rope_theta` (transformers 4, vLLM, llama.cpp), so that one folder serves them all; when read, the two must agree.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ConfigError, ExportError
from megadec.common.files import read_json, write_json
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.shape import DecoderShape
from megadec.export.read.safetensor_files import SafetensorFiles, files_in, write_files
from megadec.export.read.source import (
    CLASSIFICATION,
    EMBEDDING,
    HEAD,
    LANGUAGE_MODEL,
    PROVENANCE_FILE,
    ModelSource,
    check_tokenizer,
    checked,
    origin_of,
)
from megadec.export.read.tensor_names import FIELDS, LAYOUTS, Layout, layout_of, rename

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

CLASSIFIER = "ForSequenceClassification"
# How many labels transformers gives a classifier whose config.json names none.
SILENT_LABELS = 2

# What transformers assumes where config.json is silent and the value is not the same as ours.
SILENT = {"tie_word_embeddings": False, "rms_norm_eps": 1e-6, "initializer_range": 0.02, "rope_theta": 10000.0}
SILENT_OF_LAYOUT: dict[Layout, dict[str, int]] = {"llama": {}, "qwen3": {"head_dim": 128}}

# Keys whose other values would make another network: all values that mean the same, the first of which we write.
FIXED: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "sliding_window": (None,),
    "rope_scaling": (None,),
    "partial_rotary_factor": (1.0, None),
    "pretraining_tp": (1, None),
    "quantization_config": (None,),
}
WRITTEN: dict[Layout, tuple[str, ...]] = {
    "llama": ("hidden_act", "attention_bias", "mlp_bias"),
    "qwen3": ("hidden_act", "attention_bias", "use_sliding_window", "sliding_window"),
}
# Old Llama folders store RoPE's frequencies, which follow from the configuration.
DERIVED_TENSORS = ("rotary_emb.inv_freq",)


def write_model(
    source: ModelSource, folder: Path, dtype: torch.dtype, tokenizer: Tokenizer, max_shard_bytes: int
) -> None:
    """Write configuration and weights into `folder`, one tensor in memory at a time; a classifier as one.

    Raises ExportError.
    """
    shapes = {rename(name, to="hugging_face"): size for name, size in source.sizes.items()}
    write_files(folder, shapes, dtype, lambda name: source.tensor(rename(name, of="hugging_face")), max_shard_bytes)
    labels = source.task.get("labels")
    write_json(folder / CONFIG_FILE, config_of(source.shape, dtype, tokenizer.bos_id, tokenizer.eos_id, labels))
    if labels is None:
        # Greedy until `</s>`; a caller who wants to sample says so.
        ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id, "pad_token_id": tokenizer.eos_id}
        write_json(folder / GENERATION_FILE, {**ids, "do_sample": False})


def read_folder(folder: Path) -> ModelSource:
    """Open a folder in the llama or qwen3 layout, a language model or a classifier.

    Raises ExportError naming the file or key that does not fit.
    """
    config = read_json(folder / CONFIG_FILE, ExportError)
    shape = shape_of(config, folder / CONFIG_FILE)
    files = SafetensorFiles(files_in(folder), partial(rename, of="hugging_face"), DERIVED_TENSORS)
    stated = read_json(folder / PROVENANCE_FILE, ExportError) if (folder / PROVENANCE_FILE).is_file() else {}
    check_tokenizer(folder, stated.get("tokenizer", {}).get("sha256"))
    source = ModelSource(
        path=folder,
        kind="huggingface",
        shape=shape,
        tokenizer_path=folder / TOKENIZER_FILE,
        dtype=files.dtype,
        reader=files,
        task=_task(folder, labels_of(config, folder / CONFIG_FILE), stated.get("task", {})),
        **origin_of(stated),
    )
    checked(source, theirs=partial(rename, to="hugging_face"))
    # A tied folder may hold the output layer too; then it must be the embedding.
    if source.ties_head and HEAD in files.shapes and not torch.equal(files.read(HEAD), files.read(EMBEDDING)):
        raise ExportError(f"{folder}: tie_word_embeddings is true, but {HEAD!r} differs from the embedding")
    return source


def _task(folder: Path, labels: list[str] | None, stated: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is for: the labels of config.json, and what our own export says of the texts."""
    if labels is None:
        return {"kind": LANGUAGE_MODEL}
    task: dict[str, Any] = {"kind": CLASSIFICATION, "labels": labels, **stated}
    if (task["kind"], task["labels"]) != (CLASSIFICATION, labels):
        raise ExportError(f"{folder / CONFIG_FILE} has labels {labels}; {PROVENANCE_FILE} says {task.get('labels')}")
    return task


def choose_layout(shape: DecoderShape, wanted: str) -> Layout:
    """The layout of a shape. Raises ExportError when it is neither the wanted one nor that is `auto`."""
    fitting = layout_of(shape)
    if wanted not in ("auto", fitting):
        has = "has" if shape.qk_norm else "has not"
        raise ExportError(
            f"--layout {wanted}: the model {has} norms on queries and keys, which is the {fitting} layout"
        )
    return fitting


def config_of(
    shape: DecoderShape, dtype: torch.dtype, bos_id: int, eos_id: int, labels: Sequence[str] | None = None
) -> dict[str, Any]:
    """The content of config.json; with labels that of a classifier."""
    layout = layout_of(shape)
    dtype_name = str(dtype).removeprefix("torch.")
    config = {
        "architectures": [layout.capitalize() + ("ForCausalLM" if labels is None else CLASSIFIER)],
        "model_type": layout,
        **{row.hugging_face: getattr(shape, row.ours) for row in FIELDS},
        **{key: FIXED[key][0] for key in WRITTEN[layout]},
        "attention_dropout": 0.0,
        "rope_parameters": {"rope_theta": shape.rope_theta, "rope_type": "default"},
        "use_cache": labels is None,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "torch_dtype": dtype_name,
        "dtype": dtype_name,
    }
    if labels is not None:
        config["id2label"] = {str(number): label for number, label in enumerate(labels)}
        config["label2id"] = {label: number for number, label in enumerate(labels)}
        # transformers reads the logits behind the last id that is not this one; no text holds `</s>`.
        config["pad_token_id"] = eos_id
    return config


def labels_of(config: Mapping[str, Any], file: Path) -> list[str] | None:
    """The labels of a classifier in their order; None for another model. Raises ExportError for a gap in them."""
    if not any(name.endswith(CLASSIFIER) for name in config.get("architectures") or ()):
        return None
    named = config.get("id2label")
    if named is None:
        return [f"LABEL_{number}" for number in range(config.get("num_labels") or SILENT_LABELS)]
    labels = [named.get(str(number)) for number in range(len(named))] if isinstance(named, Mapping) else [None]
    if not all(isinstance(label, str) for label in labels) or len(set(labels)) != len(labels):
        raise ExportError(f"{file}: id2label={named!r} does not give each of the numbers from 0 on a label of its own")
    return [str(label) for label in labels]


def shape_of(config: Mapping[str, Any], file: Path) -> DecoderShape:
    """The shape that a config.json describes. Raises ExportError naming the key that we cannot express."""
    layout = config.get("model_type")
    if layout not in LAYOUTS:
        raise ExportError(f"{file}: model_type={layout!r}; megadec reads {' and '.join(LAYOUTS)}")
    _check_fixed(config, layout, file)
    known = {**SILENT, **SILENT_OF_LAYOUT[layout], **{key: value for key, value in config.items() if value is not None}}
    known.setdefault("num_key_value_heads", known.get("num_attention_heads"))
    if "head_dim" not in known and known.get("num_attention_heads"):
        known["head_dim"] = known.get("hidden_size", 0) // known["num_attention_heads"]
    known["rope_theta"] = _rope_theta(config, known, file)
    for row in FIELDS:
        if known.get(row.hugging_face) is None:
            raise ExportError(f"{file} has no {row.hugging_face!r}; a {layout} model needs it")
    try:
        return DecoderShape(**{row.ours: known[row.hugging_face] for row in FIELDS}, qk_norm=layout == "qwen3")
    except ConfigError as error:
        raise ExportError(f"{file}: {error}") from error


def _check_fixed(config: Mapping[str, Any], layout: Layout, file: Path) -> None:
    without_window = layout == "qwen3" and not config.get("use_sliding_window", False)
    for key, allowed in FIXED.items():
        # Qwen3 writes the width of a window that it does not use.
        if key == "sliding_window" and without_window:
            continue
        if key in config and config[key] not in allowed:
            raise ExportError(f"{file}: {key}={config[key]!r}; megadec's decoder can only be {allowed[0]!r} there")
    kinds = set(config.get("layer_types") or ()) - {"full_attention"}
    if kinds:
        raise ExportError(f"{file}: layer_types has {sorted(kinds)}; megadec's decoder has full_attention only")


def _rope_theta(config: Mapping[str, Any], known: Mapping[str, Any], file: Path) -> float:
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return float(known["rope_theta"])
    if rope.get("rope_type", "default") != "default" or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ExportError(
            f"{file}: rope_parameters={dict(rope)!r}; megadec's decoder has plain RoPE over the whole head"
        )
    inner = rope.get("rope_theta")
    outer = config.get("rope_theta")
    if inner is not None and outer is not None and float(inner) != float(outer):
        raise ExportError(f"{file}: rope_theta={outer!r} but rope_parameters.rope_theta={inner!r}; the two must agree")
    return float(inner if inner is not None else known["rope_theta"])
