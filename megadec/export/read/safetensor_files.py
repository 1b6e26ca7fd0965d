"""Safetensors files: written tensor by tensor, read tensor by tensor.

The writer is our own, because the library's `save_file` wants all tensors of a file in memory at once; reading goes
through the library, so its checks apply to what we wrote.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megadec.common.errors import ExportError
from megadec.common.files import stays_inside, write_json
from megadec.common.schema import read_object, shown

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ALIGNMENT_BYTES = 8

Shapes = Mapping[str, tuple[int, ...]]
"""The size of each tensor by its name."""

_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_tensors(path: Path, shapes: Shapes, dtype: torch.dtype, read: Callable[[str], Tensor]) -> None:
    """Write one file, holding one tensor in memory at a time; `read` gives one of the size that `shapes` says."""
    header = _header(shapes, dtype)
    with open(path, "wb") as stream:
        stream.write(len(header).to_bytes(8, "little"))
        stream.write(header)
        for name, size in shapes.items():
            tensor = read(name)
            assert tuple(tensor.shape) == size, f"the header says {list(size)} for {name!r}"
            flat = tensor.detach().to(device="cpu", dtype=dtype).contiguous().reshape(-1)
            stream.write(flat.view(torch.uint8).numpy().data)


def _header(shapes: Shapes, dtype: torch.dtype) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in shapes.items():
        begin, end = end, end + math.prod(size) * dtype.itemsize
        entries[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(size), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % ALIGNMENT_BYTES)


def plan_files(shapes: Shapes, dtype: torch.dtype, max_shard_bytes: int) -> dict[str, Shapes]:
    """File name -> its tensors, filled in order up to `max_shard_bytes`; a larger tensor gets a file of its own."""
    files: list[dict[str, tuple[int, ...]]] = [{}]
    filled = 0
    for name, size in shapes.items():
        tensor_bytes = math.prod(size) * dtype.itemsize
        if files[-1] and filled + tensor_bytes > max_shard_bytes:
            files.append({})
            filled = 0
        files[-1][name] = size
        filled += tensor_bytes
    if len(files) == 1:
        return {SINGLE_FILE: files[0]}
    return {f"model-{number:05d}-of-{len(files):05d}.safetensors": part for number, part in enumerate(files, start=1)}


def write_files(
    folder: Path, shapes: Shapes, dtype: torch.dtype, read: Callable[[str], Tensor], max_shard_bytes: int
) -> None:
    """Write one file, or where one would be larger than `max_shard_bytes` several with an index."""
    plan = plan_files(shapes, dtype, max_shard_bytes)
    for file, part in plan.items():
        write_tensors(folder / file, part, dtype, read)
    if len(plan) > 1:
        write_json(folder / INDEX_FILE, index_of(plan, dtype))


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, as its index names them. Raises ExportError."""
    if (folder / INDEX_FILE).is_file():
        names = read_object(folder / INDEX_FILE, {"weight_map": {str: str}}, ExportError).get("weight_map")
        if not names:
            raise ExportError(f"{folder / INDEX_FILE} has no 'weight_map' from tensor to file")
        if wrong := [name for name in names.values() if not stays_inside(name)]:
            raise ExportError(f"{folder / INDEX_FILE}: weight_map names {shown(wrong[0])}, no file of this folder")
        return [folder / name for name in sorted(set(names.values()))]
    if not (folder / SINGLE_FILE).is_file():
        raise ExportError(f"{folder} has neither {SINGLE_FILE} nor {INDEX_FILE}; megadec reads safetensors only")
    return [folder / SINGLE_FILE]


def index_of(plan: Mapping[str, Shapes], dtype: torch.dtype) -> dict[str, Any]:
    """The content of `model.safetensors.index.json` for several files."""
    sizes = [math.prod(size) for part in plan.values() for size in part.values()]
    weight_map = {name: file for file, part in plan.items() for name in part}
    return {
        "metadata": {"total_parameters": sum(sizes), "total_size": sum(sizes) * dtype.itemsize},
        "weight_map": dict(sorted(weight_map.items())),
    }


class SafetensorFiles:
    """The tensors of some safetensors files under the names that `rename` gives them (see `TensorReader`)."""

    def __init__(self, files: Sequence[Path], rename: Callable[[str], str] = str, ignore: tuple[str, ...] = ()) -> None:
        """Read the headers only. Names that end in one of `ignore` are passed over. Raises ExportError."""
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: set[torch.dtype] = set()
        for file in files:
            for stored, size, dtype in _read_header(file):
                if dtype not in _DTYPES:
                    raise ExportError(f"{file}: tensor {stored!r} is {dtype}; {', '.join(_DTYPES)} can be read")
                if not stored.endswith(ignore):
                    name = rename(stored)
                    self._places[name], self.shapes[name] = (file, stored), size
                    self._dtypes.add(_DTYPES[dtype])

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 where every tensor is; float32, which holds all others exactly, where not."""
        return torch.bfloat16 if self._dtypes == {torch.bfloat16} else torch.float32

    def read(self, name: str) -> Tensor:
        """One tensor in its stored dtype, in memory of its own."""
        file, stored = self._places[name]
        with safe_open(file, framework="pt", device="cpu") as reader:
            return torch.clone(reader.get_tensor(stored))


def _read_header(file: Path) -> list[tuple[str, tuple[int, ...], str]]:
    """Each tensor's name, size and dtype, in safetensors' words."""
    if not file.is_file():
        raise ExportError(f"{file} does not exist; the model's weights were expected in it")
    try:
        with safe_open(file, framework="pt", device="cpu") as reader:
            slices = [(name, reader.get_slice(name)) for name in reader.keys()]  # noqa: SIM118 (no mapping)
            return [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices]
    except SafetensorError as broken:
        size = file.stat().st_size
        raise ExportError(f"{file} ({size} bytes) is not a whole safetensors file: {broken}") from broken
