"""DeepSpeed's checkpoint files -> float32 master weights and moments, one tensor at a time, for ZeRO stages 0 to 3.

In comes the folder that DeepSpeed's `save_checkpoint` wrote (checkpoints of version 1 hold one); out goes each
parameter, put together from all ranks' partitions. The files are memory-mapped: what is not asked for is not read, and
a tensor costs its own size. The layout of the files is that of deepspeed/utils/zero_to_fp32.py (0.19): stages 1 and 2
cut each parameter group into one piece a rank, stage 3 cuts each parameter; AdamW's moments lie like the weights. What
the optimizer does not own (frozen parameters) has no master weight: stages 1 and 2 keep it whole in the module's state,
stage 3 in pieces beside it, in the dtype in which it was computed with. Our own reading instead of DeepSpeed's, because
that one holds stages 1 and 2 whole in memory and unpickles whatever the file asks for; here a class of DeepSpeed's
becomes an inert record.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from megadec.common.errors import CheckpointError
from megadec.engine.zero.state_files import MOMENTS, WEIGHT

_RANK_FILE = re.compile(r"^(?:bf16_|fp16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")
_MODEL_FILE = "mp_rank_00_model_states.pt"
_MODEL_FILE_STAGE_3 = "zero_pp_rank_{}_mp_rank_00_model_states.pt"
_STAGE_3_GROUPS = "fp32_flat_groups"
_STAGE_1_2_GROUPS = "single_partition_of_fp32_groups"
_STAGE_3_OPTIMIZER = "optimizer_state_dict"
_STAGE_1_2_OPTIMIZER = "base_optimizer_state"


class _Record:
    """Stands in for a class of DeepSpeed's that the files name; holds what was pickled and runs nothing."""

    def __init__(self, *values: Any) -> None:
        self.values = values


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements [start, start + length) of a mapped vector."""

    vector: Tensor
    start: int
    length: int


class ZeroFiles:
    """The parameters in a folder of DeepSpeed's files (see `StateReader`)."""

    def __init__(self, folder: Path, optimizer_names: Sequence[str] = ()) -> None:
        """Map the files and find every parameter in them; reads no weights. Raises CheckpointError.

        optimizer_names: the parameters in the order of the optimizer's groups; stage 0 alone keeps its moments by
        number.
        """
        self.folder = folder
        rank_files = _rank_files(folder)
        stage_3 = (folder / _MODEL_FILE_STAGE_3.format(0)).is_file()
        model_file = folder / (_MODEL_FILE_STAGE_3.format(0) if stage_3 else _MODEL_FILE)
        model = _load(model_file)
        self._moments: dict[str, dict[str, list[_Piece]]] = {}
        self.optimizer_step: int | None = None
        if not rank_files:
            self._pieces, self._shapes = _whole_parameters(model, model_file)
            self._take_whole_moments(model, optimizer_names)
            return
        states = [_optimizer_state(file) for file in rank_files]
        _check_rank_count(states[0], rank_files)
        groups = [_sizes(group) for group in _need(model, "param_shapes", model_file)]
        self._shapes = {name: size for group in groups for name, size in group.items()}
        key = _STAGE_3_GROUPS if stage_3 else _STAGE_1_2_GROUPS
        vectors = [_need(state, key, file) for state, file in zip(states, rank_files, strict=True)]
        paddings = states[0].get("param_alignment_paddings")

        def cut(vectors: Sequence[Sequence[Tensor]]) -> dict[str, list[_Piece]]:
            if stage_3:
                _check_stage_3_lengths(self._shapes, vectors, rank_files)
                return _stage_3_pieces(self._shapes, vectors)
            return _stage_1_2_pieces(groups, vectors, paddings)

        self._pieces = cut(vectors)
        inner = [state.get(_STAGE_3_OPTIMIZER if stage_3 else _STAGE_1_2_OPTIMIZER) for state in states]
        if moments := _moment_vectors(inner):
            self.optimizer_step, by_part = moments
            self._moments = {part: cut(of_ranks) for part, of_ranks in by_part.items()}
        frozen = _frozen_stage_3(folder, model, len(rank_files)) if stage_3 else _frozen_stage_1_2(model, self._shapes)
        for name, (size, pieces) in frozen.items():
            self._shapes[name], self._pieces[name] = size, pieces
        self._check_lengths()

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The size of each parameter; the second name of a tied one is not there (DeepSpeed lists it as shared)."""
        return self._shapes

    def read(self, name: str) -> Tensor:
        """One parameter in float32, copied out of the mapped files."""
        size = self._shapes[name]
        return self.read_range(name, WEIGHT, 0, math.prod(size)).view(size).float()

    def parts(self, name: str) -> Sequence[str]:
        """What the files hold of a parameter: its weight, and the moments where it has some."""
        return (WEIGHT, *(part for part in MOMENTS if name in self._moments.get(part, {})))

    def read_range(self, name: str, part: str, start: int, length: int) -> Tensor:
        """Elements [start, start + length) of a parameter's weight or moment, copied out of the mapped files."""
        pieces = self._pieces[name] if part == WEIGHT else self._moments[part][name]
        found, begin = [], 0
        for piece in pieces:
            first, last = max(start, begin), min(start + length, begin + piece.length)
            if first < last:
                found.append(piece.vector.narrow(0, piece.start + first - begin, last - first))
            begin += piece.length
        return found[0].clone() if len(found) == 1 else torch.cat(found)

    def _take_whole_moments(self, model: Mapping[str, Any], names: Sequence[str]) -> None:
        states = (model.get("optimizer") or {}).get("state") or {}
        for number, name in enumerate(names):
            if number in states:
                self.optimizer_step = int(states[number]["step"])
                for part in MOMENTS:
                    flat = states[number][part].reshape(-1)
                    self._moments.setdefault(part, {})[name] = [_Piece(flat, 0, flat.numel())]

    def _check_lengths(self) -> None:
        for name, size in self._shapes.items():
            found = sum(piece.length for piece in self._pieces[name])
            if found < math.prod(size):
                raise CheckpointError(
                    f"{self.folder}: {name!r} has {found} elements over all ranks; its shape {list(size)} wants "
                    f"{math.prod(size)}: a rank's file is cut or of another run"
                )


def _moment_vectors(inner: Sequence[Any]) -> tuple[int, dict[str, list[list[Tensor]]]] | None:
    """AdamW's step count, and for each moment every rank's vectors in the order of the groups; None before a step.

    inner: each rank's state of the optimizer inside DeepSpeed's.
    """
    of_ranks = [state.get("state") if isinstance(state, Mapping) else None for state in inner]
    if not all(of_ranks):
        return None
    states = [[of_rank[number] for number in sorted(of_rank)] for of_rank in of_ranks if of_rank]
    step = int(states[0][0]["step"])
    return step, {part: [[group[part] for group in of_rank] for of_rank in states] for part in MOMENTS}


def _check_stage_3_lengths(
    shapes: Mapping[str, tuple[int, ...]], vectors: Sequence[Sequence[Tensor]], files: Sequence[Path]
) -> None:
    wanted = sum(-(-math.prod(size) // len(files)) for size in shapes.values())
    for of_rank, file in zip(vectors, files, strict=True):
        found = sum(vector.numel() for vector in of_rank)
        if found != wanted:
            raise CheckpointError(f"{file} has {found} elements; the shapes of the run want {wanted} from each rank")


def _stage_3_pieces(
    shapes: Mapping[str, tuple[int, ...]], vectors: Sequence[Sequence[Tensor]]
) -> dict[str, list[_Piece]]:
    """Stage 3: rank r holds elements [r * part, (r + 1) * part) of each parameter, part = ceil(numel / ranks)."""
    pieces: dict[str, list[_Piece]] = {}
    offset = 0
    for name, size in shapes.items():
        part = -(-math.prod(size) // len(vectors))
        pieces[name] = [piece for of_rank in vectors for piece in _cut(of_rank, offset, part)]
        offset += part
    return pieces


def _stage_1_2_pieces(
    groups: Sequence[Mapping[str, tuple[int, ...]]],
    vectors: Sequence[Sequence[Tensor]],
    paddings: Sequence[Sequence[int]] | None,
) -> dict[str, list[_Piece]]:
    """Stages 1 and 2: a group's parameters stand end to end in a vector that the ranks share out in order."""
    pieces: dict[str, list[_Piece]] = {}
    for number, group in enumerate(groups):
        partitions = [of_rank[number] for of_rank in vectors]
        offset = 0
        for position, (name, size) in enumerate(group.items()):
            pieces[name] = _cut(partitions, offset, math.prod(size))
            offset += math.prod(size) + (paddings[number][position] if paddings else 0)
    return pieces


_Whole = dict[str, tuple[tuple[int, ...], list[_Piece]]]


def _frozen_stage_1_2(model: Mapping[str, Any], trained: Mapping[str, tuple[int, ...]]) -> _Whole:
    """What stands whole in the module's state and in no group: neither a buffer nor the second name of a tied one."""
    others = {*trained, *(model.get("buffer_names") or ()), *(model.get("shared_params") or ())}
    return {
        name: (tuple(tensor.shape), [_Piece(tensor.reshape(-1), 0, tensor.numel())])
        for name, tensor in (model.get("module") or {}).items()
        if name not in others
    }


def _frozen_stage_3(folder: Path, model: Mapping[str, Any], ranks: int) -> _Whole:
    """Frozen parameters cut like the others; each rank's part lies in its own model file."""
    sizes = _sizes(model.get("frozen_param_shapes") or {})
    if not sizes:
        return {}
    files = [folder / _MODEL_FILE_STAGE_3.format(rank) for rank in range(ranks)]
    fragments = [_need(_load(file), "frozen_param_fragments", file) for file in files]
    return {
        name: (size, [_Piece(of_rank[name].reshape(-1), 0, of_rank[name].numel()) for of_rank in fragments])
        for name, size in sizes.items()
    }


def _cut(vectors: Sequence[Tensor], start: int, length: int) -> list[_Piece]:
    """Elements [start, start + length) of the vectors laid end to end; fewer where they end before."""
    pieces = []
    ends = list(accumulate(vector.numel() for vector in vectors))
    for vector, end in zip(vectors, ends, strict=True):
        begin = end - vector.numel()
        first, last = max(start, begin), min(start + length, end)
        if first < last:
            pieces.append(_Piece(vector, first - begin, last - first))
    return pieces


def _sizes(group: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(size) for name, size in group.items()}


def _whole_parameters(
    model: Mapping[str, Any], file: Path
) -> tuple[dict[str, list[_Piece]], dict[str, tuple[int, ...]]]:
    """Stage 0: every parameter stands whole in the module's state."""
    module = _need(model, "module", file)
    buffers = set(model.get("buffer_names") or ())
    kept = {name: tensor for name, tensor in module.items() if name not in buffers}
    if any(tensor.numel() == 0 for tensor in kept.values()):
        raise CheckpointError(f"{file.parent} has no *_optim_states.pt files; a ZeRO-3 run keeps its weights in those")
    pieces = {name: [_Piece(tensor.reshape(-1), 0, tensor.numel())] for name, tensor in kept.items()}
    return pieces, {name: tuple(tensor.shape) for name, tensor in kept.items()}


def _rank_files(folder: Path) -> list[Path]:
    """The optimizer files in the order of their ranks; none at stage 0. Raises CheckpointError for a gap."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    numbered = sorted((int(match[1]), match[0]) for name in names if (match := _RANK_FILE.match(name)))
    if [rank for rank, _ in numbered] != list(range(len(numbered))):
        raise CheckpointError(f"{folder} has optimizer files of ranks {[rank for rank, _ in numbered]}; one is missing")
    return [folder / name for _, name in numbered]


def _check_rank_count(state: Mapping[str, Any], files: Sequence[Path]) -> None:
    count = _need(state, "partition_count", files[0])
    wanted = max(count) if isinstance(count, list) else count
    if wanted != len(files):
        raise CheckpointError(f"{files[0].parent} has {len(files)} *_optim_states.pt files; {wanted} ranks wrote it")


def _optimizer_state(file: Path) -> Mapping[str, Any]:
    state: Mapping[str, Any] = _need(_load(file), "optimizer_state_dict", file)
    return state


def _need(mapping: Mapping[str, Any], key: str, file: Path) -> Any:
    if mapping.get(key) is None:
        raise CheckpointError(f"{file} has no {key!r}; a file of DeepSpeed 0.19's save_checkpoint has one")
    return mapping[key]


def _load(file: Path) -> dict[str, Any]:
    """Map one file. No class in it is imported and none of its code runs. Raises CheckpointError."""
    if not file.is_file():
        raise CheckpointError(f"{file} does not exist; DeepSpeed's save_checkpoint writes it")
    try:
        foreign = get_unsafe_globals_in_checkpoint(file)
        inert: list[Any] = [(type("Record", (_Record,), {}), name) for name in foreign if name.startswith("deepspeed.")]
        with safe_globals(inert):
            loaded: dict[str, Any] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, ValueError, EOFError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{file} ({file.stat().st_size} bytes) is not a whole PyTorch file: {reason}") from error
    return loaded
