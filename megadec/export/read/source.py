"""What an export reads from: the shape of a model, its tokenizer, and its tensors one at a time.

A tensor is read from the files each time it is asked for, so memory is bounded by a tensor and time by the disk.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from megadec import __version__
from megadec.common.errors import ExportError, MegadecError, ModelFolderError
from megadec.common.schema import read_object, without_null
from megadec.common.tokenizer import Tokenizer
from megadec.common.tokenizer_files import content_sha256, vocabulary_file
from megadec.decoder.flops import parameter_table
from megadec.decoder.shape import DecoderShape
from megadec.engine.checkpoint.manifest import FILES, check_files
from megadec.engine.runs.common import CHECKPOINTS
from megadec.export.read.content import content_of

EMBEDDING = "embed_tokens.weight"
HEAD = "lm_head.weight"
SCORE = "score.weight"
PROVENANCE_FILE = "megadec.json"
MOST_POSITIONS = 2**24  # tables of angles are made for all of them

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
    foreign: other tools wrote the folder, so that its reading is to be proven (`huggingface.foreign`). proof: how it
    was, None where it was not.
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
    foreign: bool = False
    proof: Mapping[str, Any] | None = None

    @property
    def content(self) -> str:
        """What identifies it, wherever it lies."""
        return content_of(self.path)

    @property
    def classes(self) -> int | None:
        """How many labels a classifier has; None for a language model."""
        return len(self.task["labels"]) if self.task["kind"] == CLASSIFICATION else None

    @property
    def ties_head(self) -> bool:
        """Whether the output layer is the embedding; a classifier has none."""
        return self.shape.tied_embeddings and self.classes is None

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """The size of each tensor by our names, in the order of the model; a tied output layer is left out."""
        return parameter_table(self.shape, self.classes)

    def names(self) -> list[str]:
        """Our names of all tensors in the order of the model."""
        return list(self.sizes)

    def tensor(self, name: str) -> Tensor:
        """One tensor in the dtype in which the files hold it (float32 master weights from a checkpoint).

        Raises ModelFolderError for a value that is not finite: what is made of it would be silent, or break.
        """
        tensor = self.reader.read(name)
        if not all(map(math.isfinite, torch.aminmax(tensor))):  # NaN goes through both
            raise ModelFolderError(f"{self.path}: tensor {name!r} holds a value that is infinite or not a number")
        return tensor

    @property
    def provenance(self) -> dict[str, Any]:
        """Where the weights come from, as it goes into an export's own files.

        name: of `runs/NAME/checkpoints/step_00000100` NAME/step_00000100, of any other folder its own.
        """
        resolved = self.path.resolve()
        run = resolved.parents[1].name + "/" if resolved.parent.name == CHECKPOINTS else ""
        return {
            "kind": self.kind,
            "name": run + resolved.name,
            "step": self.step,
            "tokens": self.tokens,
            "skipped_sha256": self.skipped_sha256,
            **({} if self.proof is None else {"compared_with_its_runtime": dict(self.proof)}),
        }


def statement(source: ModelSource, tokenizer: Tokenizer, kind: str) -> dict[str, Any]:
    """What an export says of itself in a file of its own. kind: of file."""
    return {
        "format": kind,
        "version": 1,
        "megadec": __version__,
        "source": source.provenance,
        "task": dict(source.task),
        "tokenizer": {"sha256": tokenizer.sha256, "vocabulary_size": tokenizer.vocabulary_size},
    }


# What such a file, and a graph of ours, may say.
TASK = {"kind": str, "labels": [str], "template": str, "sequence_length": int, "cut": str}
STATEMENT = {
    "source": {"step": int, "tokens": int, "skipped_sha256": str},
    "task": TASK,
    "tokenizer": {"sha256": str},
    "files": FILES,
}


def read_statement(folder: Path) -> dict[str, Any]:
    """What an export's megadec.json says; empty where there is none, as in a foreign folder. Raises ExportError."""
    stated: dict[str, Any] = without_null(read_object(folder / PROVENANCE_FILE, STATEMENT, ExportError))
    return stated


def check_export(folder: Path) -> dict[str, Any]:
    """`read_statement`, with the files that it names and the tokenizer compared by their hashes. Raises ExportError."""
    stated = read_statement(folder)
    check_files(folder, stated.get("files", {}), ExportError)
    check_tokenizer(folder, stated.get("tokenizer", {}).get("sha256"))
    return stated


def origin_of(stated: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelSource that a `statement` keeps."""
    source = stated.get("source", {})
    return {name: source.get(name) for name in ("step", "tokens", "skipped_sha256")}


def write_carried(tokenizer: Tokenizer, folder: Path) -> list[str]:
    """Write the tokenizer and what stands beside it into a folder; gives the files' names."""
    carried = tokenizer.carried_files()
    for name, content in carried.items():
        (folder / name).write_bytes(content)
    return list(carried)


def check_vocabulary(source: ModelSource, tokenizer: Tokenizer) -> None:
    """Raise ExportError when the tokenizer has pieces that the model has no rows for."""
    if tokenizer.vocabulary_size > source.shape.vocabulary_size:
        raise ExportError(
            f"{tokenizer.path} has {tokenizer.vocabulary_size} pieces, added tokens among them; the model has rows for "
            f"{source.shape.vocabulary_size} only"
        )


def check_tokenizer(folder: Path, wanted: str | None, error: type[MegadecError] = ExportError) -> Path:
    """The folder's tokenizer; raises `error` when it is missing, or is another than `wanted` (None: unknown)."""
    file = vocabulary_file(folder)
    if not file.is_file():
        raise error(f"{file} does not exist, nor a tokenizer.json; a model carries the tokenizer that its data had")
    found = content_sha256(file)
    if wanted not in (None, found):
        raise error(f"{file} has sha256 {found}; the model was trained with {wanted}")
    return file


def check_equal(
    source: ModelSource, found: Mapping[str, Tensor], ours: Callable[[str], Tensor], held: str, more: Sequence[str] = ()
) -> None:
    """Compare what an export holds of the source's tensors, and of `more`, bit for bit with `ours` in float32.

    Raises ExportError naming the tensor; `held` says what holds it.
    """
    names = [*source.names(), *more]
    if other := found.keys() ^ set(names):
        raise ExportError(f"{held}: tensor {min(other)!r} is missing or is not one of {source.path}")
    for name in names:
        theirs, wanted = found[name], ours(name).float()
        if theirs.shape != wanted.shape or not torch.equal(theirs.view(torch.int32), wanted.view(torch.int32)):
            raise ExportError(f"{held}: tensor {name!r} is not what {source.path} holds")


def _check_bounds(
    path: Path, shape: DecoderShape, found: Mapping[str, tuple[int, ...]], error: type[MegadecError]
) -> None:
    """Raise `error` where a number of the shape is beyond the weights: a table of such tensors could not be made."""
    largest = max((max(size) for size in found.values() if size and all(size)), default=0)
    stated = {name: getattr(shape, name) for name in ("vocabulary_size", "hidden_size", "intermediate_size")}
    stated["heads x head_size"] = shape.query_size
    if shape.layers > len(found):
        raise error(f"{path}: {shape.layers} layers are stated; the weights are {len(found)} tensors in all")
    for name, value in stated.items():
        if value > largest:
            raise error(f"{path}: {name} is {value}; no tensor of the weights has a side above {largest}")
    if shape.max_position_embeddings > MOST_POSITIONS:
        raise error(f"{path}: max_position_embeddings is {shape.max_position_embeddings}, above {MOST_POSITIONS}")


def checked(
    source: ModelSource, error: type[MegadecError] = ExportError, theirs: Callable[[str], str] = str
) -> ModelSource:
    """The source itself; raises `error` for a tensor that is missing, left over or of another size.

    `theirs` gives the file's name of one of our tensors, for the message.
    """
    found = source.reader.shapes
    _check_bounds(source.path, source.shape, found, error)
    wanted = source.sizes
    missing = [theirs(name) for name in wanted if name not in found]
    left_over = [theirs(name) for name in found if name not in wanted and not (source.ties_head and name == HEAD)]
    for names, what in ((missing, "is missing"), (left_over, "is left over")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise error(f"{source.path}: tensor {names[0]!r}{more} {what}; the shape asks for {len(wanted)} tensors")
    for name, size in found.items():
        expected = wanted.get(name, wanted[EMBEDDING])
        if tuple(size) != expected:
            raise error(
                f"{source.path}: tensor {theirs(name)!r} has shape {list(size)}; the model wants {list(expected)}"
            )
    return source
