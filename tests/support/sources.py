"""Decoders with random weights, held in memory instead of in files."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from megadec.common.tokenizer import Tokenizer
from megadec.decoder.flops import parameter_table
from megadec.decoder.shape import DecoderShape
from megadec.export.read.source import CLASSIFICATION, PROVENANCE_FILE, ModelSource
from tests.support.decoders import TINY

TINY_SHAPE = {**TINY, "hidden_size": 48, "intermediate_size": 64, "max_position_embeddings": 48, "rope_theta": 10000.0}


class InMemory:
    """Random tensors of a shape's sizes; norms near 1, matrices large enough that the logits differ clearly."""

    def __init__(self, shape: DecoderShape, classes: int | None = None) -> None:
        generator = torch.Generator().manual_seed(7)
        self.tensors: dict[str, Tensor] = {}
        for name, size in parameter_table(shape, classes).items():
            noise = torch.randn(size, generator=generator)
            self.tensors[name] = 1 + 0.1 * noise if name.endswith("norm.weight") else 0.1 * noise

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name: str) -> Tensor:
        return self.tensors[name].clone()


class Unsteady(InMemory):
    """Gives another value of one tensor the second time that it is read."""

    def read(self, name: str) -> Tensor:
        found = super().read(name)
        self.tensors["norm.weight"][0] += 1.0
        return found


def random_source(tokenizer_path: Path, **changes: object) -> ModelSource:
    """A source with random float32 weights, as if from a checkpoint; `changes` are fields of the shape."""
    vocabulary = {"vocabulary_size": Tokenizer.load(tokenizer_path).vocabulary_size}
    shape = DecoderShape.from_mapping({**TINY_SHAPE, **vocabulary, **changes})
    return ModelSource(
        path=Path("runs/tiny/checkpoints/step_00000012"),
        kind="checkpoint",
        shape=shape,
        tokenizer_path=tokenizer_path,
        dtype=torch.float32,
        reader=InMemory(shape),
        step=12,
        tokens=3456,
    )


def without_hashes(folder: Path) -> Path:
    """An export as earlier ones are, and as it is while it is compared: its files are known by their content alone."""
    file = folder / PROVENANCE_FILE
    stated = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({key: value for key, value in stated.items() if key != "files"}), encoding="utf-8")
    return folder


def random_classifier(tokenizer_path: Path, task: Mapping[str, object] | None = None, **changes: object) -> ModelSource:
    """`random_source` with a score of three labels; `task` changes what is said of the texts and labels."""
    source = random_source(tokenizer_path, **changes)
    task = {"kind": CLASSIFICATION, "labels": ["体育", "财经", "房产"], "template": "{text}", **(task or {})}
    return dataclasses.replace(source, reader=InMemory(source.shape, classes=3), task=task)
