"""A path -> a LanguageModel or a TextClassifier: the format is found by the files that are there.

A model imports its runtime when it is opened, so a server of one format does without the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from megadec.common.errors import ConfigError, opening_folder
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.packed import WeightDtype
from megadec.decoding.paged import CACHE_BYTES, CACHE_SEQUENCES, PagedDecoder
from megadec.decoding.session import BatchedModel, LanguageModel, TextClassifier
from megadec.export.gguf.batched import BatchedLlamaCpp
from megadec.export.gguf.llama_cpp import LlamaCppModel
from megadec.export.gguf.writer import MODEL_FILE as GGUF_FILE
from megadec.export.onnx.runtime import OnnxClassifier
from megadec.export.read.load import load_source
from megadec.export.read.open_model import open_model
from megadec.export.read.source import CLASSIFICATION, LANGUAGE_MODEL, read_statement
from megadec.export.runtimes import check_exported, open_runtime, runtime_of
from megadec.finetune.classify import classifier_of
from megadec.serve.grammar import Grammars
from megadec.serve.template import ChatTemplate, read_template


@dataclass(frozen=True)
class ServedModel:
    """A model that continues text. kind: megadec, huggingface, checkpoint, gguf or onnx."""

    name: str
    kind: str
    model: LanguageModel | BatchedModel
    tokenizer: Tokenizer
    template: ChatTemplate
    provenance: Mapping[str, Any]

    @cached_property
    def grammars(self) -> Grammars:
        """What answers may have to look like."""
        return Grammars(self.tokenizer)


@dataclass(frozen=True)
class ServedClassifier:
    """A model that labels text."""

    name: str
    classifier: TextClassifier
    provenance: Mapping[str, Any]


@opening_folder()
def open_language_model(
    path: Path,
    name: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | None = None,
    sequences: int = CACHE_SEQUENCES,
    cache_bytes: int = CACHE_BYTES,
) -> ServedModel:
    """Open a run, a checkpoint, or a Hugging Face, megadec, GGUF or ONNX folder.

    dtype (int8 on the CPU, too) and device are those of our own decoder; GGUF and ONNX hold theirs, and others are
    refused. sequences: for how many of the whole context its cache has room, within cache_bytes. Raises
    ConfigError, CheckpointError, ModelFolderError, TokenizerError, or MissingExtraError for a runtime that is missing.
    """
    path = _folder(path)
    stated = read_statement(path)
    _check_task(path, stated.get("task", {}))
    kind, model, tokenizer = _open(path, dtype, device, sequences, cache_bytes)
    provenance = stated.get("source", {})
    return ServedModel(name or path.resolve().name, kind, model, tokenizer, read_template(tokenizer), provenance)


@opening_folder()
def is_classifier(path: Path) -> bool:
    """Whether a folder, run or checkpoint holds a classifier. Raises what opening it raises."""
    path = _folder(path)
    kind = read_statement(path).get("task", {}).get("kind")
    if kind is None and runtime_of(path) is not None:
        return False
    return bool((kind or open_model(path).task["kind"]) == CLASSIFICATION)


@opening_folder()
def open_classifier(path: Path, dtype: torch.dtype = torch.float32, device: str | None = None) -> ServedClassifier:
    """Open a classifier: a run, a checkpoint, a Hugging Face or an ONNX folder. dtype, device, errors: as above."""
    path = _folder(path)
    if dtype == torch.int8:
        raise ConfigError("--dtype int8 is for language models; a classifier takes float32 or bfloat16")
    stated = read_statement(path)
    if stated and stated.get("task", {}).get("kind") != CLASSIFICATION:
        raise ConfigError(f"--classifier {path} continues text and has no labels; it is given as --model")
    classifier: TextClassifier
    if runtime_of(path) == "onnx":
        check_exported(path, "ONNX", dtype, device)
        classifier = OnnxClassifier(path)
    else:
        source = open_model(path)
        classifier = classifier_of(source, dtype, device)
        stated = {"source": source.provenance, **stated}
    return ServedClassifier(path.resolve().name, classifier, stated.get("source", {}))


def _open(
    path: Path, dtype: torch.dtype, device: str | None, sequences: int, cache_bytes: int
) -> tuple[str, LanguageModel | BatchedModel, Tokenizer]:
    if runtime_of(path) is not None:
        opened = open_runtime(path, dtype, device)
        if isinstance(opened.model, LlamaCppModel):
            return opened.kind, BatchedLlamaCpp(opened.model, sequences, cache_bytes), opened.tokenizer
        return opened.kind, opened.model, opened.tokenizer
    source = open_model(path)
    _check_task(path, source.task)
    decoder, tokenizer = load_source(source, torch.float32 if dtype == torch.int8 else dtype, device)
    weights: WeightDtype = str(dtype).removeprefix("torch.")  # type: ignore[assignment]
    return source.kind, PagedDecoder(decoder, weights, sequences, cache_bytes), tokenizer


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
