"""A path -> the model behind it: a run, a checkpoint, a megadec folder or a Hugging Face folder.

The kind is found by the files that are there, so that a user names a place and not a format; hashes, shapes and tensor
names are checked.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from megadec.common.errors import CheckpointError, ConfigError, opening_folder
from megadec.decoder.shape import DecoderShape
from megadec.engine.checkpoint.manifest import MANIFEST, checkpoint_name, newest_whole, read_manifest
from megadec.engine.checkpoint.skipped import Skipped
from megadec.engine.early_stopping import read_best
from megadec.engine.runs.common import CHECKPOINTS
from megadec.engine.zero.state_files import FOLDER as STATE_FOLDER
from megadec.engine.zero.state_files import StateFiles
from megadec.export.read import huggingface_files, megadec
from megadec.export.read.huggingface_files import CONFIG_FILE
from megadec.export.read.source import (
    CLASSIFICATION,
    LANGUAGE_MODEL,
    ModelSource,
    TensorReader,
    check_tokenizer,
    checked,
)

MANIFEST_FILE = MANIFEST
LORA_A, LORA_B = ".lora_a", ".lora_b"


@opening_folder()
def open_model(path: Path) -> ModelSource:
    """Open a run (its best checkpoint, or the newest whole one), a checkpoint, a megadec or a Hugging Face folder.

    Raises ConfigError when `path` is none of them, CheckpointError or ModelFolderError when it is one and not whole.
    """
    path = Path(path)
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder; give a run, a checkpoint, or an exported model")
    for name, runtime in (("model.gguf", "llama.cpp"), ("model.onnx", "onnxruntime")):
        if (path / name).is_file():
            raise ConfigError(
                f"{path} holds {name}, which {runtime} runs: launch/serve.py, megadec.load, and of a"
                " language model tools/generate.py and tools/evaluate.py take it; give the run or its Hugging Face"
                " export here"
            )
    if (path / CHECKPOINTS).is_dir():
        return _open_checkpoint(path)
    if (path / megadec.SHAPE_FILE).is_file():
        return megadec.read_folder(path)
    if (path / CONFIG_FILE).is_file():
        return huggingface_files.read_folder(path)
    if (path / MANIFEST_FILE).is_file() or (path / STATE_FOLDER).is_dir():
        return _open_checkpoint(path)
    raise ConfigError(
        f"{path} holds no model: neither {CHECKPOINTS}/ (a run), {MANIFEST_FILE} (a checkpoint), {megadec.SHAPE_FILE} "
        f"(a megadec model), {CONFIG_FILE} (a Hugging Face model), model.gguf nor model.onnx"
    )


def checkpoint_of(path: Path) -> tuple[Path, dict[str, Any]]:
    """A checkpoint and its checked manifest; of a run the best where evaluations chose one, else the newest whole.

    Raises CheckpointError when there is none.
    """
    if not (path / CHECKPOINTS).is_dir():
        return path, read_manifest(path)
    best = read_best(path)
    if best is not None:
        folder = path / CHECKPOINTS / checkpoint_name(best["step"])
        return folder, read_manifest(folder)
    found = newest_whole(path / CHECKPOINTS)
    if found is None:
        raise CheckpointError(
            f"{path / CHECKPOINTS} has no checkpoint; a run writes one every checkpoint.interval_steps"
        )
    return found


def _open_checkpoint(path: Path) -> ModelSource:
    """Open a checkpoint, or that of a run, and check its hashes, its tokenizer and its tensors."""
    folder, manifest = checkpoint_of(path)
    task = manifest.get("task", {"kind": LANGUAGE_MODEL})
    if task["kind"] not in (LANGUAGE_MODEL, CLASSIFICATION):
        raise ConfigError(f"{folder} holds a {task['kind']} model; a decoder or a classifier was expected here")
    tokenizer_file = check_tokenizer(folder, manifest["tokenizer"]["sha256"], CheckpointError)
    try:
        shape = DecoderShape.from_mapping(manifest["shape"])
    except ConfigError as error:
        raise CheckpointError(f"{folder / MANIFEST_FILE}: {error}") from error
    files: TensorReader = StateFiles(folder)
    if lora := task.get("lora"):
        files = MergedLora(files, lora["alpha"] / lora["rank"])
    source = ModelSource(
        path=folder,
        kind="checkpoint",
        shape=shape,
        tokenizer_path=tokenizer_file,
        dtype=torch.bfloat16 if manifest["precision"] == "bf16" else torch.float32,
        reader=files,
        step=manifest["step"],
        tokens=manifest["tokens"],
        task=task,
        skipped_sha256=Skipped.from_manifest(manifest).sha256(manifest["step"]),
    )
    return checked(source, CheckpointError)


@dataclass(frozen=True)
class MergedLora:
    """The tensors of a LoRA checkpoint as if it had been trained whole: W + scale * B A (arXiv 2106.09685).

    Merging happens at each reading, so no export has to know of LoRA and a tensor costs one small product more.
    """

    reader: TensorReader
    scale: float

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes of the plain tensors."""
        return {name: size for name, size in self.reader.shapes.items() if not name.endswith((LORA_A, LORA_B))}

    def read(self, name: str) -> Tensor:
        """The tensor with its low-rank part added, in float32; as it is where it has none."""
        tensor = self.reader.read(name)
        owner = name.removesuffix(".weight")
        if owner + LORA_A not in self.reader.shapes:
            return tensor
        product = self.reader.read(owner + LORA_B).float() @ self.reader.read(owner + LORA_A).float()
        return tensor.float().add_(product, alpha=self.scale)
