"""A Hugging Face folder's weights and configuration, written and read as plain files.

Transformers is not needed here, so that reading an export costs no import of it; huggingface/ proves that it agrees,
for what we write and for what others wrote.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ExportError
from megadec.common.files import write_json
from megadec.common.tokenizer import Tokenizer
from megadec.common.tokenizer_files import GENERATION_FILE, vocabulary_file
from megadec.export.read.huggingface_config import config_of, labels_of, shape_of
from megadec.export.read.huggingface_schema import read_config
from megadec.export.read.safetensor_files import SafetensorFiles, files_in, write_files
from megadec.export.read.source import (
    CLASSIFICATION,
    EMBEDDING,
    HEAD,
    LANGUAGE_MODEL,
    PROVENANCE_FILE,
    ModelSource,
    check_export,
    checked,
    origin_of,
)
from megadec.export.read.tensor_names import rename

CONFIG_FILE = "config.json"

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
    end = tokenizer.stated_end if labels is None else tokenizer.eos_id
    write_json(folder / CONFIG_FILE, config_of(source.shape, dtype, tokenizer.bos_id, end, labels))
    if labels is None:
        # Greedy until an end token, where the model does not say otherwise; a caller who wants to sample says so.
        ids = {"bos_token_id": tokenizer.bos_id, "pad_token_id": tokenizer.eos_id, "do_sample": False}
        write_json(folder / GENERATION_FILE, {**ids, **tokenizer.generation, "eos_token_id": end})


def read_folder(folder: Path) -> ModelSource:
    """Open a folder of a `model_type` that we read, a language model or a classifier.

    Raises ExportError naming the file or key that does not fit.
    """
    config = read_config(folder / CONFIG_FILE)
    shape = shape_of(config, folder / CONFIG_FILE)
    files = SafetensorFiles(files_in(folder), partial(rename, of="hugging_face"), DERIVED_TENSORS)
    stated = check_export(folder)
    source = ModelSource(
        path=folder,
        kind="huggingface",
        shape=shape,
        tokenizer_path=vocabulary_file(folder),
        dtype=files.dtype,
        reader=files,
        task=_task(folder, labels_of(config, folder / CONFIG_FILE), stated.get("task", {})),
        foreign=not stated,
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
