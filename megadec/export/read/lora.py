"""The tensors of a LoRA checkpoint as if it had been trained whole: W + alpha / rank * B A (arXiv 2106.09685).

Merging happens at each reading, so no export has to know of LoRA and a tensor costs one small product more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from megadec.export.read.source import TensorReader

A, B = ".lora_a", ".lora_b"


class MergedLora:
    """A `TensorReader` over another one: its names without the low-rank parts, its tensors with these added."""

    def __init__(self, reader: TensorReader, scale: float) -> None:
        self._reader = reader
        self._scale = scale

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The sizes of the plain tensors."""
        return {name: size for name, size in self._reader.shapes.items() if not name.endswith((A, B))}

    def read(self, name: str) -> Tensor:
        """The tensor with its low-rank part added, in float32; as it is where it has none."""
        tensor = self._reader.read(name)
        owner = name.removesuffix(".weight")
        if owner + A not in self._reader.shapes:
            return tensor
        product = self._reader.read(owner + B).float() @ self._reader.read(owner + A).float()
        return tensor.float().add_(product, alpha=self._scale)


def merged(reader: TensorReader, task: Mapping[str, Any]) -> TensorReader:
    """`reader` itself, or its merged tensors when the manifest's task says that LoRA trained them."""
    lora = task.get("lora")
    return reader if lora is None else MergedLora(reader, lora["alpha"] / lora["rank"])
