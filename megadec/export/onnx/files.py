"""model.onnx and model.onnx.data: a graph, and its weights beside it, written and read tensor by tensor.

Weights are always in a file of their own, also small ones: one way of writing, which has no limit of 2 GB and holds one
tensor at a time, for the price of two files that must stay together.
"""

import json
from collections.abc import Callable, Container
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.decoder.layers import rope_table
from megadec.export.onnx.decoder import COSINES, SINES
from megadec.export.onnx.graph import Graph, onnx_library
from megadec.export.onnx.int8 import SCALES, dequantize, is_quantized, quantize
from megadec.export.read.source import ModelSource, check_equal

MODEL_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
TASK_NOTE = "megadec.task"
# Where a tensor may begin, so that a runtime can map it.
PAGE_BYTES = 4096


def write_onnx(folder: Path, graph: Graph, source: ModelSource) -> None:
    """Write both files, one tensor in memory at a time, in float32 or, where the graph has blocks of them, in int8.

    The graph carries the source's task, so that what is loaded knows its labels.
    """
    read = _tensors_for(source, graph.weights)
    with open(folder / DATA_FILE, "wb") as stream:
        weights = [_write_tensor(stream, name, size, read) for name, size in graph.weights.items()]
    model = graph.model(source.task["kind"], weights, {TASK_NOTE: json.dumps(dict(source.task), ensure_ascii=False)})
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())


def _write_tensor(stream: IO[bytes], name: str, size: tuple[int, ...], read: Callable[[str], Tensor]) -> Any:
    """Append a tensor at the next page; gives the graph's record of it."""
    onnx = onnx_library()
    tensor = read(name)
    assert tuple(tensor.shape) == size, f"the graph wants {list(size)} for {name!r}"
    stream.write(b"\0" * (-stream.tell() % PAGE_BYTES))
    stored = tensor.detach().to(device="cpu", dtype=None if tensor.dtype == torch.uint8 else torch.float32).contiguous()
    kind = onnx.helper.np_dtype_to_tensor_dtype(stored.numpy().dtype)
    entry = onnx.TensorProto(name=name, dims=size, data_type=kind)
    entry.data_location = onnx.TensorProto.EXTERNAL
    place = {"location": DATA_FILE, "offset": stream.tell(), "length": stored.nbytes}
    for key, value in place.items():
        entry.external_data.add(key=key, value=str(value))
    stream.write(stored.numpy().data)
    return entry


def _tensors_for(source: ModelSource, stored: Container[str] = ()) -> Callable[[str], Tensor]:
    """A source's tensors, and RoPE's tables [max_position_embeddings, head_size / 2] by the graph's names for them.

    stored: all names in the graph; a matrix that has scales among them is quantized.
    """
    shape, cpu = source.shape, torch.device("cpu")
    made = rope_table(shape.head_size, shape.rope_theta, shape.max_position_embeddings, cpu, shape.rope_scaling)
    tables = dict(zip((COSINES, SINES), made, strict=True))

    def read(name: str) -> Tensor:
        if name in tables:
            return tables[name]
        if name.endswith(SCALES):
            return quantize(source.tensor(name.removesuffix(SCALES)))[1]
        tensor = source.tensor(name)
        return quantize(tensor)[0] if name + SCALES in stored else tensor

    return read


def map_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a written model by name, mapped from its data file; changes to them stay in this process.

    Raises ExportError when there is no model, or its weights are not beside it.
    """
    onnx, found, model_file = onnx_library(), {}, folder / MODEL_FILE
    try:
        onnx.checker.check_model(str(model_file))
    except (OSError, onnx.checker.ValidationError) as error:
        raise ExportError(f"{model_file} is not a whole ONNX model: {error}") from error
    for entry in onnx.load(model_file, load_external_data=False).graph.initializer:
        if entry.data_location != onnx.TensorProto.EXTERNAL:
            continue
        place = {item.key: item.value for item in entry.external_data}
        if place.get("location") != DATA_FILE or entry.data_type not in (
            onnx.TensorProto.FLOAT,
            onnx.TensorProto.UINT8,
        ):
            raise ExportError(f"{model_file}: tensor {entry.name!r} is neither float32 nor uint8 in {DATA_FILE}")
        file, offset = folder / DATA_FILE, int(place.get("offset", 0))
        kind = onnx.helper.tensor_dtype_to_np_dtype(entry.data_type)
        try:
            found[entry.name] = torch.from_numpy(np.memmap(file, kind, "c", offset, tuple(entry.dims)))
        except (OSError, ValueError) as error:
            raise ExportError(f"{file} does not hold tensor {entry.name!r} at byte {offset}: {error}") from error
    return found


def compare_weights(folder: Path, source: ModelSource, int8: bool = False) -> dict[str, Tensor]:
    """The model's own tensors in float32, each compared bit for bit with the source; what is not int8 is mapped.

    Raises ExportError naming one.
    """
    written, read, held = map_weights(folder), _tensors_for(source), str(folder / MODEL_FILE)
    matrices = [name for name, size in source.sizes.items() if int8 and len(size) > 1]
    for name in matrices:
        if name + SCALES not in written or not is_quantized(written, name, read(name)):
            raise ExportError(f"{held}: tensor {name!r} is not what {source.path} holds, as int8")
        written[name] = dequantize(written[name], written.pop(name + SCALES))
    check_equal(source, written, lambda name: written[name] if name in matrices else read(name), held, (COSINES, SINES))
    return {name: written[name] for name in source.names()}
