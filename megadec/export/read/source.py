"""What an export reads from: the shape of a model, its tokenizer, and its tensors one at a time.

In comes a folder that `consolidate.open_model` recognised, out go checked tensors. A tensor is read from the files each
time it is asked for, so memory is bounded by a tensor and time by the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from megadec.common.errors import ExportError, MegadecError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape

EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"

Kind = Literal["checkpoint", "megadec", "huggingface"]
LANGUAGE_MODEL = "language_model"
CLASSIFICATION = "classification"


class TensorReader(Protocol):
    """Tensors by name, in files."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The size of each tensor by its name, tied ones once or twice."""

    def read(self, name: str) -> Tensor:
        """The tensor, in memory of its own, in the dtype in which the files hold it."""


@dataclass(frozen=True)
class ModelSource:
    """A model on disk. `dtype` is what its weights were computed in; `step` and `tokens` are None where unknown.

    skipped_sha256: `Skipped.sha256` of the checkpoint, None where unknown.
    task: what it was trained for, as a checkpoint's manifest says it: its `kind`, and of a classifier its `labels` in
    the order of the logits and the `template` into which a text is put.
    """

    path: Path
    kind: Kind
    shape: DecoderShape
    tokenizer_path: Path
    dtype: torch.dtype
    reader: TensorReader
    step: int | None = None
    tokens: int | None = None
    task: Mapping[str, Any] = field(default_factory=lambda: {"kind": LANGUAGE_MODEL})
    skipped_sha256: str | None = None

    @property
    def classes(self) -> int | None:
        """How many labels a classifier has; None for a language model."""
        return classes_of(self.task)

    def names(self) -> list[str]:
        """Our names of all tensors in the order of the model; a tied output layer is left out."""
        return list(tensor_shapes(self.shape, self.classes))

    def tensor(self, name: str) -> Tensor:
        """One tensor in the dtype in which the files hold it (float32 master weights from a checkpoint)."""
        return self.reader.read(name)

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, as it goes into an export's own files."""
        return {
            "kind": self.kind,
            "name": _run_name(self.path),
            "step": self.step,
            "tokens": self.tokens,
            "skipped_sha256": self.skipped_sha256,
        }


def _run_name(path: Path) -> str:
    """`runs/NAME/checkpoints/step_00000100` -> `NAME/step_00000100`; any other folder gives its own name."""
    resolved = path.resolve()
    if resolved.parent.name == "checkpoints":
        return f"{resolved.parent.parent.name}/{resolved.name}"
    return resolved.name


def check_vocabulary(source: ModelSource, tokenizer: Tokenizer) -> None:
    """Raise ExportError when the tokenizer has pieces that the model has no rows for."""
    if tokenizer.vocabulary_size > source.shape.vocabulary_size:
        raise ExportError(
            f"{tokenizer.path} has {tokenizer.vocabulary_size} pieces; the model has rows for "
            f"{source.shape.vocabulary_size} only"
        )


def classes_of(task: Mapping[str, Any]) -> int | None:
    """How many labels the task of a manifest has; None when it is no classification."""
    return len(task["labels"]) if task["kind"] == CLASSIFICATION else None


def tensor_shapes(shape: DecoderShape, classes: int | None = None) -> dict[str, tuple[int, ...]]:
    """The size of every tensor that a decoder of this shape has, by our names; a tied output layer is left out.

    With `classes`, those of a classifier: `score.weight` in place of an output layer.
    """
    with torch.device("meta"):
        decoder = Decoder(shape, classes=classes)
    return {name: tuple(tensor.shape) for name, tensor in decoder.named_parameters()}


def check_tensors(
    found: Mapping[str, tuple[int, ...]],
    shape: DecoderShape,
    where: Path,
    error: type[MegadecError],
    theirs: Callable[[str], str] = str,
    classes: int | None = None,
) -> None:
    """Compare the tensors in files with those of a shape. Raises `error` for one missing, left over or of another size.

    `theirs` gives the file's name of one of our tensors, for the message.
    """
    wanted = tensor_shapes(shape, classes)
    missing = [theirs(name) for name in wanted if name not in found]
    tied = {HEAD} if shape.tied_embeddings and classes is None else set()
    left_over = [theirs(name) for name in found if name not in wanted and name not in tied]
    for names, what in ((missing, "is missing"), (left_over, "is left over")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise error(f"{where}: tensor {names[0]!r}{more} {what}; the shape asks for {len(wanted)} tensors")
    for name, size in found.items():
        expected = wanted.get(name, wanted[EMBEDDING])
        if tuple(size) != expected:
            raise error(f"{where}: tensor {theirs(name)!r} has shape {list(size)}; the model wants {list(expected)}")
