"""A Hugging Face folder's weights and configuration, written and read as plain files.

Transformers is not needed here, so that reading an export costs no import of it; huggingface/export.py proves that it
agrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ExportError
from megadec.common.files import read_json, sha256_of, write_json
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.common.tokenizer import Tokenizer
from megadec.export.read.layout import (
    CONFIG_FILE,
    GENERATION_FILE,
    config_of,
    generation_config_of,
    labels_of,
    shape_of,
)
from megadec.export.read.names import layout_of, rename
from megadec.export.read.safetensor_files import (
    INDEX_FILE,
    SINGLE_FILE,
    SafetensorFiles,
    index_of,
    plan_files,
    write_tensors,
)
from megadec.export.read.source import (
    CLASSIFICATION,
    EMBEDDING,
    HEAD,
    LANGUAGE_MODEL,
    PROVENANCE_FILE,
    ModelSource,
    check_vocabulary,
    checked,
    origin_of,
)

# Old Llama folders store RoPE's frequencies, which follow from the configuration.
DERIVED_TENSORS = ("rotary_emb.inv_freq",)


def write_model(
    source: ModelSource, folder: Path, dtype: torch.dtype, tokenizer: Tokenizer, max_shard_bytes: int
) -> None:
    """Write configuration and weights into `folder`, one tensor in memory at a time; a classifier as one.

    Raises ExportError.
    """
    check_vocabulary(source, tokenizer)
    layout = layout_of(source.shape)
    shapes = {rename(name, layout, to="hugging_face"): size for name, size in source.sizes.items()}
    plan = plan_files(shapes, dtype, max_shard_bytes)
    for file, part in plan.items():
        write_tensors(folder / file, part, dtype, lambda name: source.tensor(rename(name, layout, of="hugging_face")))
    if len(plan) > 1:
        write_json(folder / INDEX_FILE, index_of(plan, dtype))
    labels = source.task.get("labels")
    write_json(folder / CONFIG_FILE, config_of(source.shape, dtype, tokenizer.bos_id, tokenizer.eos_id, labels))
    if labels is None:
        write_json(folder / GENERATION_FILE, generation_config_of(tokenizer.bos_id, tokenizer.eos_id))


def read_folder(folder: Path) -> ModelSource:
    """Open a folder in the llama or qwen3 layout, a language model or a classifier.

    Raises ExportError naming the file or key that does not fit.
    """
    config = read_json(folder / CONFIG_FILE, ExportError)
    shape = shape_of(config, folder / CONFIG_FILE)
    layout = layout_of(shape)
    tokenizer_path = folder / TOKENIZER_FILE
    if not tokenizer_path.is_file():
        raise ExportError(f"{folder} has no {TOKENIZER_FILE}; megadec reads models with a sentencepiece tokenizer")
    files = SafetensorFiles(
        _weight_files(folder), lambda name: rename(name, layout, of="hugging_face"), DERIVED_TENSORS
    )
    stated = _provenance(folder, tokenizer_path)
    source = ModelSource(
        path=folder,
        kind="huggingface",
        shape=shape,
        tokenizer_path=tokenizer_path,
        dtype=files.dtype,
        reader=files,
        task=_task(folder, labels_of(config, folder / CONFIG_FILE), stated.get("task", {})),
        **origin_of(stated),
    )
    checked(source, theirs=lambda name: rename(name, layout, to="hugging_face"))
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


def _weight_files(folder: Path) -> list[Path]:
    if (folder / INDEX_FILE).is_file():
        index = read_json(folder / INDEX_FILE, ExportError)
        if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
            raise ExportError(f"{folder / INDEX_FILE} has no 'weight_map' from tensor to file")
        return [folder / name for name in sorted(set(index["weight_map"].values()))]
    if not (folder / SINGLE_FILE).is_file():
        raise ExportError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; megadec reads safetensors only")
    return [folder / SINGLE_FILE]


def _provenance(folder: Path, tokenizer_path: Path) -> dict[str, Any]:
    """What our own export wrote beside the model, or nothing. Raises ExportError for another tokenizer."""
    if not (folder / PROVENANCE_FILE).is_file():
        return {}
    stated: dict[str, Any] = read_json(folder / PROVENANCE_FILE, ExportError)
    wanted = stated.get("tokenizer", {}).get("sha256")
    found = sha256_of(tokenizer_path)
    if wanted != found:
        raise ExportError(
            f"{tokenizer_path} has sha256 {found}; {PROVENANCE_FILE} says the model was trained with {wanted}"
        )
    return stated
