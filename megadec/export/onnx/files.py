"""model.onnx and model.onnx.data: a graph, and its weights beside it.

In come a Graph and a function that gives one tensor, out go two files; and back, tensor by tensor. Weights are always
in a file of their own, also small ones: one way of writing, which has no limit of 2 GB and holds one tensor at a time,
for the price of two files that must stay together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.decoder.layers import rope_table
from megadec.decoder.shape import DecoderShape
from megadec.export.onnx.decoder import COSINES, SINES
from megadec.export.onnx.graph import Graph, onnx_library
from megadec.export.read.source import ModelSource

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
TASK_NOTE = "megadec.task"
# Where a tensor may begin, so that a runtime can map it.
PAGE_BYTES = 4096


def write_onnx(folder: Path, graph: Graph, source: ModelSource) -> None:
    """Write both files, one tensor in memory at a time, in float32. Raises ExportError for a tensor of another size.

    The graph carries the source's task, so that what is loaded knows its labels.
    """
    read = _tensors_for(source)
    with open(folder / DATA_FILE, "wb") as stream:
        weights = [_write_tensor(stream, name, size, read) for name, size in graph.weights.items()]
    model = graph.model(source.task["kind"], weights, {TASK_NOTE: json.dumps(dict(source.task), ensure_ascii=False)})
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())


def _write_tensor(stream: IO[bytes], name: str, size: tuple[int, ...], read: Callable[[str], Tensor]) -> Any:
    """Append a tensor at the next page; gives the graph's record of it."""
    onnx = onnx_library()
    tensor = read(name)
    if tuple(tensor.shape) != size:
        raise ExportError(f"tensor {name!r} has shape {list(tensor.shape)}; the graph wants {list(size)}")
    stream.write(b"\0" * (-stream.tell() % PAGE_BYTES))
    entry = onnx.TensorProto(name=name, dims=size, data_type=onnx.TensorProto.FLOAT)
    entry.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": DATA_FILE, "offset": stream.tell(), "length": 4 * math.prod(size)}
    for key, value in place.items():
        entry.external_data.add(key=key, value=str(value))
    stream.write(tensor.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy().data)
    return entry


def _tensors_for(source: ModelSource) -> Callable[[str], Tensor]:
    """A source's tensors, and RoPE's tables under the names that the graph has for them."""
    tables = rope_tables(source.shape)

    def read(name: str) -> Tensor:
        return tables[name] if name in tables else source.tensor(name)

    return read


def rope_tables(shape: DecoderShape) -> dict[str, Tensor]:
    """cosines and sines [max_position_embeddings, head_size / 2] by the graph's names."""
    cosines_TF, sines_TF = rope_table(
        shape.head_size, shape.rope_theta, shape.max_position_embeddings, torch.device("cpu")
    )
    return {COSINES: cosines_TF, SINES: sines_TF}


class OnnxWeights:
    """The float32 tensors of a written model by name, mapped from its data file."""

    def __init__(self, folder: Path) -> None:
        """Read and check the graph only. Raises ExportError when it is none, or its weights are not beside it."""
        onnx = onnx_library()
        model = _checked_model(folder)
        self._file = folder / DATA_FILE
        self._offsets: dict[str, int] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for entry in model.graph.initializer:
            if entry.data_location != onnx.TensorProto.EXTERNAL:
                continue
            place = {item.key: item.value for item in entry.external_data}
            if place.get("location") != DATA_FILE or entry.data_type != onnx.TensorProto.FLOAT:
                raise ExportError(f"{folder / MODEL_FILE}: tensor {entry.name!r} is not float32 in {DATA_FILE}")
            self._offsets[entry.name] = int(place.get("offset", 0))
            self._shapes[entry.name] = tuple(entry.dims)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The size of each tensor by its name."""
        return self._shapes

    def read(self, name: str) -> Tensor:
        """One tensor; its memory is the file's, changes to it stay in this process."""
        size, offset = self._shapes[name], self._offsets[name]
        try:
            return torch.from_numpy(np.memmap(self._file, np.float32, "c", offset, size))
        except (OSError, ValueError) as error:
            raise ExportError(f"{self._file} does not hold tensor {name!r} at byte {offset}: {error}") from error


def _checked_model(folder: Path) -> Any:
    """The ModelProto without its weights."""
    onnx = onnx_library()
    file = folder / MODEL_FILE
    try:
        onnx.checker.check_model(str(file))
    except (OSError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{file} is not a whole ONNX model: {error}") from error
    return onnx.load(file, load_external_data=False)


def compare_weights(folder: Path, source: ModelSource) -> dict[str, Tensor]:
    """The model's own tensors, mapped, each compared bit for bit with the source. Raises ExportError naming one."""
    written = OnnxWeights(folder)
    wanted = _tensors_for(source)
    names = [*source.names(), *rope_tables(source.shape)]
    if written.shapes.keys() != set(names):
        other = min(written.shapes.keys() ^ set(names))
        raise ExportError(f"{folder / MODEL_FILE}: tensor {other!r} is missing or is not one of {source.path}")
    for name in names:
        found, value = written.read(name), wanted(name).float()
        if found.shape != value.shape or not torch.equal(found.view(torch.int32), value.view(torch.int32)):
            raise ExportError(f"tensor {name!r} as written is not what {source.path} holds")
    return {name: written.read(name) for name in source.names()}
