"""A path -> the model behind it: a run, a checkpoint, a megadec folder or a Hugging Face folder.

In comes what a user types after `--input` or `--model`, out goes a ModelSource whose hashes, shapes and tensor names
were checked. The kind is found by the files that are there, so that a user names a place and not a format.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.files import sha256_of
from megadec.common.tokenizer import FILE_NAME as TOKENIZER_FILE
from megadec.decoder.shape import DecoderShape
from megadec.engine.checkpoint.manifest import (
    MANIFEST,
    checkpoint_name,
    newest_whole,
    read_manifest,
)
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.early_stopping import read_best
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.zero.state_files import FOLDER as STATE_FOLDER
from megadec.engine.zero.state_files import StateFiles
from megadec.export.read import huggingface_files, megadec
from megadec.export.read.layout import CONFIG_FILE
from megadec.export.read.lora import merged
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL, ModelSource, check_tensors, classes_of

MANIFEST_FILE = MANIFEST


def open_model(path: Path) -> ModelSource:
    """Open a run (its best checkpoint, or the newest whole one), a checkpoint, a megadec or a Hugging Face folder.

    Raises ConfigError when `path` is none of them, CheckpointError or ExportError when it is one and not whole.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder; give a run, a checkpoint, or an exported model")
    if (path / CHECKPOINTS).is_dir():
        return _open_checkpoint(*checkpoint_of(path))
    if (path / megadec.SHAPE_FILE).is_file():
        return megadec.read_folder(path)
    if (path / CONFIG_FILE).is_file():
        return huggingface_files.read_folder(path)
    if (path / MANIFEST_FILE).is_file() or (path / STATE_FOLDER).is_dir():
        return _open_checkpoint(path)
    raise ConfigError(
        f"{path} holds no model: neither {CHECKPOINTS}/ (a run), {MANIFEST_FILE} (a checkpoint), {megadec.SHAPE_FILE} "
        f"(a megadec model) nor {CONFIG_FILE} (a Hugging Face model)"
    )


def checkpoint_of(run: Path) -> tuple[Path, dict[str, Any]]:
    """A run's checkpoint and its checked manifest: the best where evaluations chose one, else the newest whole.

    Raises CheckpointError when there is none.
    """
    best = read_best(run)
    if best is not None:
        folder = run / CHECKPOINTS / checkpoint_name(best["step"])
        return folder, read_manifest(folder)
    found = newest_whole(run / CHECKPOINTS)
    if found is None:
        raise CheckpointError(
            f"{run / CHECKPOINTS} has no checkpoint; a run writes one every checkpoint.interval_steps"
        )
    return found


def _open_checkpoint(folder: Path, manifest: dict[str, Any] | None = None) -> ModelSource:
    """Open a checkpoint and check its tokenizer and its tensors, and its hashes unless `manifest` is given."""
    manifest = manifest or read_manifest(folder)
    task = _task(manifest, folder)
    shape = _shape(manifest, folder)
    check_tokenizer(folder, manifest["tokenizer"]["sha256"])
    files = merged(StateFiles(folder), task)
    check_tensors(files.shapes, shape, folder, CheckpointError, classes=classes_of(task))
    return ModelSource(
        path=folder,
        kind="checkpoint",
        shape=shape,
        tokenizer_path=folder / TOKENIZER_FILE,
        dtype=torch.bfloat16 if manifest["precision"] == "bf16" else torch.float32,
        reader=files,
        step=manifest["step"],
        tokens=manifest["tokens"],
        task=task,
        skipped_sha256=Skipped.from_manifest(manifest).sha256(manifest["step"]),
    )


def _task(manifest: dict[str, Any], folder: Path) -> dict[str, Any]:
    task: dict[str, Any] = manifest.get("task", {"kind": LANGUAGE_MODEL})
    if task["kind"] not in (LANGUAGE_MODEL, CLASSIFICATION):
        raise ConfigError(f"{folder} holds a {task['kind']} model; a decoder or a classifier was expected here")
    return task


def _shape(manifest: dict[str, Any], folder: Path) -> DecoderShape:
    try:
        return DecoderShape.from_mapping(manifest["shape"])
    except ConfigError as error:
        raise CheckpointError(f"{folder / MANIFEST_FILE}: {error}") from error


def check_tokenizer(folder: Path, wanted: str) -> None:
    """Raise CheckpointError when the checkpoint's tokenizer is missing or has another SHA-256 than `wanted`."""
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; a checkpoint carries the tokenizer that its data were made with")
    found = sha256_of(file)
    if found != wanted:
        raise CheckpointError(f"{file} has sha256 {found}; {MANIFEST_FILE} says the run was trained with {wanted}")
