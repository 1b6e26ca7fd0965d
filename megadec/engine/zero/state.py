"""The training state in memory: this rank's elements of every parameter and its moments, to be saved, filled, compared.

What it gives are views of DeepSpeed's own tensors (`stages.py` knows where they lie); what is written into them is the
state.
"""

from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from megadec.common.errors import CheckpointError
from megadec.engine.zero.stages import STAGES, Group
from megadec.engine.zero.state_files import MOMENTS, WEIGHT, ShardSlice, StateFiles, Sums, bit_sum


class ZeroState:
    """The state of a DeepSpeed engine. `rank`, `world_size`: this one among those that share it."""

    def __init__(self, deepspeed_engine: Any, stage: int, rank: int, world_size: int) -> None:
        self._names: dict[nn.Parameter, str] = {p: name for name, p in deepspeed_engine.module.named_parameters()}
        self._stage = STAGES[stage](deepspeed_engine, self._names, rank, world_size)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The size of each whole parameter; a tied one has its first name."""
        return {name: tuple(getattr(p, "ds_shape", p.shape)) for p, name in self._names.items()}

    @property
    def frozen(self) -> frozenset[str]:
        """The parameters that are not trained."""
        return frozenset(name for p, name in self._names.items() if not p.requires_grad)

    @property
    def optimizer_step(self) -> int | None:
        """How many updates AdamW has made here; None where it has no moments yet."""
        steps = {int(state["step"]) for state in self._stage.adamw.state.values() if "step" in state}
        assert len(steps) <= 1, steps
        return steps.pop() if steps else None

    @property
    def on_disk(self) -> bool:
        """Whether DeepSpeed keeps weights and moments of this rank on a disk between steps."""
        return self._stage.on_disk

    def slices(self) -> list[ShardSlice]:
        """The slices of `tensors`, in its order, without reading what is on disk."""
        return [shard for group in self._stage.groups(loading=False) for shard, _ in self._slices_of(group)]

    def tensors(self) -> Generator[tuple[ShardSlice, Tensor], None, None]:
        """Every slice that this rank saves, always in the same order; a tensor is valid until the next iteration.

        Trained parameters come first: they are float32, and wide elements stand before narrow ones in a file. Close the
        generator if you stop early, which releases the buffers that NVMe is read into.
        """
        for group in self._stage.groups(loading=False):
            with self._stage.in_memory(group, loading=False):
                yield from self._views_of(group)

    def check(self, files: StateFiles) -> None:
        """Raise CheckpointError when the files hold another model, or lack a moment of what is trained here."""
        shapes = self.shapes
        for p, name in self._names.items():
            if files.shapes.get(name) != shapes[name]:
                raise CheckpointError(f"it has no {name!r} of shape {list(shapes[name])}: it holds another model")
            needed = {WEIGHT, *(MOMENTS if p.requires_grad and files.optimizer_step is not None else ())}
            if missing := sorted(needed - set(files.parts(name))):
                raise CheckpointError(f"it has no {missing[0]} of {name!r}, which was frozen there, or is cut")

    def load(self, files: StateFiles) -> None:
        """Take weights and moments from files that `check` has passed, and give the model its weights in the dtype that
        it computes with. Collective.
        """
        if files.optimizer_step is None:
            self._stage.adamw.state.clear()
        with torch.no_grad(), self._stage.loading():
            for group in self._stage.groups(loading=True):
                with self._stage.in_memory(group, loading=True):
                    if group.trained and files.optimizer_step is not None:
                        self._make_moments(group.weights, files.optimizer_step)
                    for shard, tensor in self._views_of(group):
                        tensor.copy_(files.read_range(shard.name, shard.part, shard.start, shard.length))

    def bit_sums(self) -> Sums:
        """By parameter and part, the `bit_sum` of this rank's elements."""
        sums: Sums = {}
        for shard, tensor in self.tensors():
            sums.setdefault(shard.name, {})[shard.part] = bit_sum(tensor, shard.start)
        return sums

    def _slices_of(self, group: Group) -> Iterator[tuple[ShardSlice, int]]:
        """This rank's slices of a group, and where they begin in its tensors."""
        state = self._stage.adamw.state.get(group.weights, {})
        for name, start, length, offset in group.fragments:
            if length:
                for part in (WEIGHT, *(moment for moment in MOMENTS if moment in state)):
                    yield ShardSlice(name, part, start, length, group.weights.dtype), offset

    def _views_of(self, group: Group) -> Iterator[tuple[ShardSlice, Tensor]]:
        for shard, offset in self._slices_of(group):
            whole = group.weights if shard.part == WEIGHT else self._stage.adamw.state[group.weights][shard.part]
            yield shard, whole.data.view(-1).narrow(0, offset, shard.length)

    def _make_moments(self, weights: Tensor, step: int) -> None:
        """Create AdamW's state for a tensor, with its step counter at `step`; moments that exist are kept."""
        state = self._stage.adamw.state[weights]
        state["step"] = torch.tensor(float(step), dtype=torch.float32, device=weights.device)
        for part in MOMENTS:
            if part not in state:
                state[part] = torch.zeros_like(weights.data)
