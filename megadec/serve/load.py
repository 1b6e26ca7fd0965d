"""A path -> a LanguageModel or a TextClassifier: the format is found by the files that are there.

A model imports its runtime when it is opened, so a server of one format does without the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ConfigError
from megadec.common.files import read_json
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.session import DecoderModel, LanguageModel, TextClassifier
from megadec.export.gguf.llama_cpp import LlamaCppModel
from megadec.export.gguf.writer import MODEL_FILE as GGUF_FILE
from megadec.export.onnx.files import MODEL_FILE as ONNX_FILE
from megadec.export.onnx.runtime import OnnxClassifier, OnnxModel
from megadec.export.read.load import load_source
from megadec.export.read.open_model import open_model
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL, PROVENANCE_FILE
from megadec.finetune.classify import load_classifier
from megadec.serve.template import ChatTemplate, read_template


@dataclass(frozen=True)
class ServedModel:
    """A model that continues text. kind: megadec, huggingface, checkpoint, gguf or onnx."""

    name: str
    kind: str
    model: LanguageModel
    tokenizer: Tokenizer
    template: ChatTemplate
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class ServedClassifier:
    """A model that labels text."""

    name: str
    classifier: TextClassifier
    provenance: Mapping[str, Any]


def open_language_model(
    path: Path, name: str | None = None, dtype: torch.dtype = torch.float32, device: str | None = None
) -> ServedModel:
    """Open a run, a checkpoint, or a Hugging Face, megadec, GGUF or ONNX folder.

    dtype and device are those of our own decoder; GGUF and ONNX hold theirs. Raises ConfigError, CheckpointError,
    ExportError, TokenizerError, or MissingExtraError for a runtime that is not installed.
    """
    path = _folder(path)
    _check_task(path, _provenance(path).get("task", {}))
    kind, model, tokenizer = _open(path, dtype, device)
    provenance = _provenance(path).get("source", {})
    return ServedModel(name or path.resolve().name, kind, model, tokenizer, read_template(tokenizer), provenance)


def is_classifier(path: Path) -> bool:
    """Whether a folder, run or checkpoint holds a classifier. Raises what opening it raises."""
    task = _provenance(_folder(path)).get("task")
    if task is None and any((path / name).is_file() for name in (GGUF_FILE, ONNX_FILE)):
        return False
    return bool((task or open_model(path).task)["kind"] == CLASSIFICATION)


def open_classifier(path: Path) -> ServedClassifier:
    """Open a classifier: a run, a checkpoint, a Hugging Face or an ONNX folder. Raises as above."""
    path = _folder(path)
    if _provenance(path) and _provenance(path).get("task", {}).get("kind") != CLASSIFICATION:
        raise ConfigError(f"--classifier {path} continues text and has no labels; it is given as --model")
    classifier = OnnxClassifier(path) if (path / ONNX_FILE).is_file() else load_classifier(path)
    return ServedClassifier(path.resolve().name, classifier, _provenance(path).get("source", {}))


def _open(path: Path, dtype: torch.dtype, device: str | None) -> tuple[str, LanguageModel, Tokenizer]:
    if (path / GGUF_FILE).is_file():
        return "gguf", LlamaCppModel(path / GGUF_FILE), Tokenizer.load(path)
    if (path / ONNX_FILE).is_file():
        return "onnx", OnnxModel(path), Tokenizer.load(path)
    source = open_model(path)
    _check_task(path, source.task)
    decoder, tokenizer = load_source(source, dtype, device)
    return source.kind, DecoderModel(decoder), tokenizer


def _folder(path: Path) -> Path:
    if path.is_file() and path.name == GGUF_FILE:
        return path.parent
    if not path.is_dir():
        raise ConfigError(f"{path} is not a folder; give an exported model, a run or a checkpoint")
    return path


def _check_task(path: Path, task: Mapping[str, Any]) -> None:
    kind = task.get("kind", LANGUAGE_MODEL)
    if kind != LANGUAGE_MODEL:
        raise ConfigError(f"--model {path} is a model for {kind}; a classifier is given as --classifier")


def _provenance(path: Path) -> Mapping[str, Any]:
    found = read_json(path / PROVENANCE_FILE) if (path / PROVENANCE_FILE).is_file() else {}
    return found if isinstance(found, Mapping) else {}
