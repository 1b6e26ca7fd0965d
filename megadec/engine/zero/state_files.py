"""The training state on disk: each rank's elements of every parameter, as safetensors files that any ranks can read.

A slice is stored under the parameter's name and its first element, so a reader at any number of ranks and any ZeRO
stage takes the elements that it needs, whoever wrote them. DeepSpeed's own files fit the ranks and the stage that wrote
them alone.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megadec.common.errors import CheckpointError

FOLDER = "state"
WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
WRITE_BYTES = 8 << 20

# By parameter and part, a `bit_sum`.
Sums = dict[str, dict[str, int]]

_FORMAT = "megadec-state-1"
_DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


class ShardSlice(NamedTuple):
    """Elements [start, start + length) of one part (weight, exp_avg, exp_avg_sq) of a flattened parameter."""

    name: str
    part: str
    start: int
    length: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Its size in memory and on disk."""
        return self.length * self.dtype.itemsize

    @property
    def key(self) -> str:
        """The name of its tensor in a file."""
        return f"{self.part}:{self.start}:{self.name}"


def rank_file(rank: int) -> str:
    """Where the file of a rank lies below the checkpoint."""
    return f"{FOLDER}/rank_{rank:05d}.safetensors"


def header_of(slices: Sequence[ShardSlice], shapes: Mapping[str, tuple[int, ...]], optimizer_step: int | None) -> bytes:
    """The safetensors header of a file that holds these slices one after the other.

    shapes: the whole parameters' sizes.
    """
    metadata = {"format": _FORMAT, "shapes": json.dumps({name: list(size) for name, size in shapes.items()})}
    if optimizer_step is not None:
        metadata["optimizer_step"] = str(optimizer_step)
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for shard in slices:
        begin, end = end, end + shard.bytes
        assert begin % shard.dtype.itemsize == 0, "wide elements stand before narrow ones"
        dtype = _DTYPE_NAMES[shard.dtype]
        entries[shard.key] = {"dtype": dtype, "shape": [shard.length], "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def write_state(
    path: Path, header: bytes, tensors: Iterable[tuple[ShardSlice, Tensor]], check: Callable[[], None]
) -> tuple[dict[str, Any], Sums]:
    """Write a file from its header and its slices in that order, hashing what goes by, and flush it to disk.

    check: called between blocks; what it raises ends the writing. Returns the file's entry in a manifest and the sums
    over its bits. Raises OSError.
    """
    digest = hashlib.sha256(header)
    sums: Sums = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as stream:
        size = stream.write(header)
        for shard, tensor in tensors:
            flat = tensor.detach().to("cpu").contiguous()
            sums.setdefault(shard.name, {})[shard.part] = bit_sum(flat, shard.start)
            content = flat.view(torch.uint8).numpy().data
            for begin in range(0, len(content), WRITE_BYTES):
                check()
                block = content[begin : begin + WRITE_BYTES]
                digest.update(block)
                size += stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    return {"bytes": size, "sha256": digest.hexdigest()}, sums


_SUM_ELEMENTS = 1 << 18
_WORD = {4: torch.int32, 2: torch.int16}


def bit_sum(flat: Tensor, start: int) -> int:
    """A number that any changed, moved or missing element changes, and that adds up over slices modulo 2**64.

    Each element's bits, taken as an integer, times an odd number that its index in the whole parameter gives. `flat`
    holds the elements from `start` on. Zeros count nothing, so padding does not matter.
    """
    total = 0
    words = flat.detach().contiguous().view(_WORD[flat.element_size()])
    for begin in range(0, len(words), _SUM_ELEMENTS):
        block = words[begin : begin + _SUM_ELEMENTS].to(torch.int64)
        first = 2 * (start + begin) + 1
        factors = torch.arange(first, first + 2 * len(block), 2, dtype=torch.int64, device=block.device)
        total += int((block * factors).sum())
    return total % 2**64


def add_sums(total: Sums, more: Mapping[str, Mapping[str, int]]) -> None:
    """Add the `bit_sum`s of other elements of the same parameters to `total`."""
    for name, parts in more.items():
        known = total.setdefault(name, {})
        for part, value in parts.items():
            known[part] = (known.get(part, 0) + value) % 2**64


class StateFiles:
    """Weights and moments as the ranks of a run wrote them. The files are mapped; only what is asked for is read.

    shapes: the size of each parameter; a tied one has one name. optimizer_step: how many updates AdamW has made; None
    before the first, when there are no moments.
    """

    def __init__(self, checkpoint: Path) -> None:
        """Read the headers. Raises CheckpointError: no files, one that is no state file, elements in no file."""
        self.folder = checkpoint / FOLDER
        files = sorted(self.folder.glob("rank_*.safetensors"))
        if not files:
            raise CheckpointError(f"{self.folder} holds no rank_*.safetensors")
        self._files = files
        self._open = [_open(file) for file in files]
        first, *others = [file.metadata() or {} for file in self._open]
        for file, metadata in zip(files, (first, *others), strict=True):
            if metadata.get("format") != _FORMAT or metadata != first:
                raise CheckpointError(f"{file} is not of the same state as {files[0]}: its header says something else")
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: tuple(size) for name, size in json.loads(first["shapes"]).items()
        }
        self.optimizer_step = int(first["optimizer_step"]) if "optimizer_step" in first else None
        self._pieces: dict[tuple[str, str], list[tuple[int, int, int]]] = {}
        for number, file in enumerate(self._open):
            for key in file.keys():  # noqa: SIM118 not a dictionary
                part, start, name = key.split(":", 2)
                [length] = file.get_slice(key).get_shape()
                self._pieces.setdefault((name, part), []).append((int(start), length, number))
        for pieces in self._pieces.values():
            pieces.sort()
        self._check_whole()

    def parts(self, name: str) -> Sequence[str]:
        """What the files hold of a parameter: its weight, and its moments where it is trained."""
        return tuple(part for part in (WEIGHT, *MOMENTS) if (name, part) in self._pieces)

    def read(self, name: str) -> Tensor:
        """One weight in float32, in memory of its own.

        Its files are mapped for this read alone: an export reads all weights, and the pages of a mapping that stays
        count as the process's memory.
        """
        size = self.shapes[name]
        pieces = [
            _open(self._files[number]).get_slice(key)[first:last]
            for number, key, first, last in self._slices(name, WEIGHT, 0, math.prod(size))
        ]
        return torch.cat(pieces).view(size).float()

    def read_range(self, name: str, part: str, start: int, length: int) -> Tensor:
        """Elements [start, start + length) of a flattened parameter's part, in the dtype in which they were saved."""
        found = [
            self._open[number].get_slice(key)[first:last]
            for number, key, first, last in self._slices(name, part, start, length)
        ]
        tensor: Tensor = found[0] if len(found) == 1 else torch.cat(found)
        return tensor

    def _slices(self, name: str, part: str, start: int, length: int) -> Iterator[tuple[int, str, int, int]]:
        """Where these elements lie: the file's number, a tensor in it, its first element to take and the end."""
        for begin, size, number in self._pieces[name, part]:
            first, last = max(start, begin), min(start + length, begin + size)
            if first < last:
                yield number, ShardSlice(name, part, begin, size, torch.float32).key, first - begin, last - begin

    def _check_whole(self) -> None:
        for name, size in self.shapes.items():
            wanted = math.prod(size)
            if (name, WEIGHT) not in self._pieces:
                raise CheckpointError(f"{self.folder}: no file has the weight {name!r}")
            for part in self.parts(name):
                end = 0
                for start, length, _ in self._pieces[name, part]:
                    if start != end:
                        break
                    end += length
                if end != wanted:
                    raise CheckpointError(
                        f"{self.folder}: {name!r} ({part}) ends at element {end} of {wanted}: a rank's file is missing"
                    )


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise CheckpointError(f"{file} ({size} bytes) is not a whole safetensors file: {error}") from error
