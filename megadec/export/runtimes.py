"""A GGUF or ONNX folder in its own runtime: the way in for generation, evaluation and the service.

Such a folder is no `ModelSource`: what it holds is run where it is, never read as our tensors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from megadec.common.errors import ConfigError, ModelFolderError, opening_folder
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.export.gguf.llama_cpp import LlamaCppModel
from megadec.export.gguf.writer import MODEL_FILE as GGUF_FILE
from megadec.export.onnx.files import MODEL_FILE as ONNX_FILE
from megadec.export.onnx.runtime import OnnxModel
from megadec.export.parity.compare import TEXTS
from megadec.export.read.source import LANGUAGE_MODEL, PROVENANCE_FILE, check_export, read_statement

log = logger(__name__)


@dataclass(frozen=True)
class Opened:
    """A language model in a runtime that is not ours. stated: what its folder says of itself, {} where nothing."""

    kind: Literal["gguf", "onnx"]
    model: LlamaCppModel | OnnxModel
    tokenizer: Tokenizer
    stated: Mapping[str, Any]


def runtime_of(path: Path) -> Literal["gguf", "onnx"] | None:
    """Which of the two formats a folder holds, if one."""
    if (path / GGUF_FILE).is_file():
        return "gguf"
    return "onnx" if (path / ONNX_FILE).is_file() else None


def task_of_export(path: Path) -> str:
    """What an exported folder says that its model is for; one that says nothing continues text."""
    return str(read_statement(path).get("task", {}).get("kind", LANGUAGE_MODEL))


@opening_folder()
def open_runtime(path: Path, dtype: torch.dtype = torch.float32, device: str | None = None) -> Opened:
    """Open a folder of which `runtime_of` says what it is.

    dtype, device: of our own decoder; a runtime computes on the CPU in what the folder holds. Raises ConfigError when
    something else is asked for, ModelFolderError, TokenizerError, MissingExtraError.
    """
    kind = runtime_of(path)
    assert kind is not None, f"{path} holds neither {GGUF_FILE} nor {ONNX_FILE}"
    check_exported(path, kind.upper(), dtype, device)
    tokenizer = Tokenizer.load(path)
    if kind == "onnx":
        return Opened(kind, OnnxModel(path), tokenizer, read_statement(path))
    llama_cpp = LlamaCppModel(path / GGUF_FILE)
    # A file that others made states no hash, but holds the vocabulary once more.
    if [llama_cpp.encode(tokenizer.normalize(text)) for text in TEXTS] != tokenizer.encode_many(TEXTS):
        raise ModelFolderError(f"{tokenizer.path} gives other ids than the vocabulary in {GGUF_FILE}")
    return Opened(kind, llama_cpp, tokenizer, read_statement(path))


def check_exported(path: Path, kind: str, dtype: torch.dtype, device: str | None) -> None:
    """Compare the folder with what it states of itself, and what is asked for with what its runtime does here."""
    stated = check_export(path)
    if not stated and kind == "GGUF":
        log.warning("%s has no %s, so nothing says what its files should hold", path, PROVENANCE_FILE)
    if kind == "ONNX" and not stated:
        raise ModelFolderError(f"{path} has no {PROVENANCE_FILE}; a folder that --to onnx wrote has one")
    if dtype != torch.float32 or device not in (None, "cpu"):
        asked = f"--device {device}" if dtype == torch.float32 else f"--dtype {str(dtype).removeprefix('torch.')}"
        raise ConfigError(f"{asked}: {path} is {kind}, which runs on the CPU here as it was written; leave it out")
