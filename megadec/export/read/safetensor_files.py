"""Safetensors files: written tensor by tensor, read tensor by tensor.

The writer is our own, because the library's `save_file` wants all tensors of a file in memory at once; reading goes
through the library, so its checks apply to what we wrote.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megadec.common.errors import ExportError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ALIGNMENT_BYTES = 8

_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16"}
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def write_tensors(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: torch.dtype,
    read: Callable[[str], Tensor],
) -> None:
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


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in shapes.items():
        begin, end = end, end + math.prod(size) * dtype.itemsize
        entries[name] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(size), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % ALIGNMENT_BYTES)


def plan_files(
    shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, max_shard_bytes: int
) -> dict[str, dict[str, tuple[int, ...]]]:
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


def index_of(plan: Mapping[str, Mapping[str, tuple[int, ...]]], dtype: torch.dtype) -> dict[str, Any]:
    """The content of `model.safetensors.index.json` for several files."""
    sizes = [math.prod(size) for part in plan.values() for size in part.values()]
    weight_map = {name: file for file, part in plan.items() for name in part}
    return {
        "metadata": {"total_parameters": sum(sizes), "total_size": sum(sizes) * dtype.itemsize},
        "weight_map": dict(sorted(weight_map.items())),
    }


class SafetensorFiles:
    """The tensors of some safetensors files under the names that `rename` gives them (see `TensorReader`)."""

    def __init__(
        self,
        files: Sequence[Path],
        rename: Callable[[str], str] = str,
        ignore: tuple[str, ...] = (),
    ) -> None:
        """Read the headers only. Names that end in one of `ignore` are passed over. Raises ExportError."""
        self._places: dict[str, tuple[Path, str]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._dtypes: set[torch.dtype] = set()
        for file in files:
            for name, size, dtype in self._read_header(file):
                if name.endswith(ignore):
                    continue
                self._places[rename(name)] = (file, name)
                self.shapes[rename(name)] = size
                self._dtypes.add(dtype)

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 where every tensor is; float32, which holds all others exactly, where not."""
        return torch.bfloat16 if self._dtypes == {torch.bfloat16} else torch.float32

    def read(self, name: str) -> Tensor:
        """One tensor in its stored dtype, in memory of its own."""
        file, stored = self._places[name]
        with safe_open(file, framework="pt", device="cpu") as reader:
            tensor: Tensor = reader.get_tensor(stored).clone()
        return tensor

    @staticmethod
    def _read_header(file: Path) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
        if not file.is_file():
            raise ExportError(f"{file} does not exist; the model's weights were expected in it")
        try:
            with safe_open(file, framework="pt", device="cpu") as reader:
                slices = [(name, reader.get_slice(name)) for name in reader.keys()]  # noqa: SIM118 (no mapping)
                entries = [(name, tuple(part.get_shape()), part.get_dtype()) for name, part in slices]
        except SafetensorError as broken:
            raise ExportError(
                f"{file} ({file.stat().st_size} bytes) is not a whole safetensors file: {broken}"
            ) from broken
        for name, _, dtype in entries:
            if dtype not in _DTYPES:
                raise ExportError(f"{file}: tensor {name!r} is {dtype}; {', '.join(_DTYPES)} can be read")
        return [(name, size, _DTYPES[dtype]) for name, size, dtype in entries]
