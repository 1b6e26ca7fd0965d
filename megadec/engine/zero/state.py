"""The training state in memory: this rank's share of every parameter and its moments, wherever DeepSpeed keeps it.

In comes DeepSpeed's engine, out go views of its own tensors by name and place; what is written into them is the state.
Where things lie (DeepSpeed 0.19): stage 3 cuts each parameter into one part a rank and lays the parts of a sub-group
end to end; stages 1 and 2 lay a group's parameters end to end and cut that; stage 0 has everything everywhere, as have
stages 1 and 2 what is frozen, and there a rank answers for the part that stage 3 would give it. DeepSpeed's own
`safe_get_local_...` and `safe_set_full_...` reach the same tensors one at a time, with a message or a copy for each and
without the moments that are not there before the first step.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from megadec.common.errors import CheckpointError
from megadec.engine.zero.state_files import MOMENTS, WEIGHT, ShardSlice, StateReader, bit_sum


@dataclass(frozen=True)
class Share:
    """This rank's elements of one parameter: `tensors` by part, each flat and from element `start` on."""

    name: str
    start: int
    tensors: Mapping[str, Tensor]


class ZeroState:
    """The state of an engine. `rank`, `ranks`: this one among those that share it."""

    def __init__(self, engine: Any, stage: int, rank: int, ranks: int) -> None:
        self._engine = engine
        self._stage = stage
        self._rank, self._ranks = rank, ranks
        self._names: dict[nn.Parameter, str] = {p: name for name, p in engine.module.named_parameters()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The size of each whole parameter; a tied one has its first name."""
        return {name: tuple(getattr(p, "ds_shape", p.shape)) for p, name in self._names.items()}

    @property
    def frozen(self) -> frozenset[str]:
        """The parameters that are not trained."""
        return frozenset(name for p, name in self._names.items() if not p.requires_grad)

    @property
    def optimizer_names(self) -> list[str]:
        """At stage 0: the parameters in the order of the optimizer's groups."""
        if self._stage != 0:
            return []
        return [self._names[p] for group in self._engine.optimizer.param_groups for p in group["params"]]

    @property
    def optimizer_step(self) -> int | None:
        """How many updates AdamW has made here; None where it has no moments yet."""
        steps = {int(state["step"]) for state in self._optimizer.state.values() if "step" in state}
        assert len(steps) <= 1, steps
        return steps.pop() if steps else None

    @property
    def _optimizer(self) -> Any:
        """The AdamW inside."""
        return self._engine.optimizer if self._stage == 0 else self._engine.optimizer.optimizer

    @property
    def on_disk(self) -> bool:
        """Whether DeepSpeed keeps weights and moments of this rank on a disk between steps."""
        optimizer = self._engine.optimizer
        return self._stage == 3 and any(map(optimizer._swappable_optimizer_subgroup, range(len(optimizer.fp16_groups))))

    def slices(self) -> list[ShardSlice]:
        """The slices of `tensors`, in its order, without reading what is on disk."""
        if self._stage != 3:
            return [stretch for stretch, _ in self.tensors()]
        parts = (WEIGHT,) if self.optimizer_step is None else (WEIGHT, *MOMENTS)
        found = []
        for p in (p for group in self._engine.optimizer.fp16_groups for p in group):
            start, length = self._own(p.ds_numel, p.partition_numel())
            if length:
                found += [ShardSlice(self._names[p], part, start, length, torch.float32) for part in parts]
        return found + [stretch for share in self._frozen() for stretch, _ in _slices_of(share)]

    def tensors(self) -> Generator[tuple[ShardSlice, Tensor], None, None]:
        """Every stretch that this rank answers for, always in the same order. A tensor may be gone at the next one.

        Close it, if not all are taken: buffers between a disk and the host are lent meanwhile.
        """
        for share in self._shares():
            yield from _slices_of(share)

    def check(self, reader: StateReader) -> None:
        """Raise CheckpointError when the files hold another model, or lack a moment of what is trained here."""
        shapes = self.shapes
        for p, name in self._names.items():
            size = shapes[name]
            if reader.shapes.get(name) != size:
                raise CheckpointError(f"the checkpoint has no {name!r} of shape {list(size)}: it holds another model")
            needed = {WEIGHT, *(MOMENTS if p.requires_grad and reader.optimizer_step is not None else ())}
            if missing := sorted(needed - set(reader.parts(name))):
                raise CheckpointError(
                    f"the checkpoint has no {missing[0]} of {name!r}: it was frozen there, or its state was dropped"
                )

    def load(self, reader: StateReader) -> None:
        """Take weights and moments from files that `check` has passed, and give the model its weights in the dtype that
        it computes with. Collective.
        """
        with torch.no_grad():
            if reader.optimizer_step is None:
                self._optimizer.state.clear()
            for share in self._shares(reader.optimizer_step, writing=True):
                for part, tensor in share.tensors.items():
                    tensor.copy_(reader.read_range(share.name, part, share.start, tensor.numel()))
            if self._stage in (1, 2):
                self._engine.optimizer.update_lp_params()

    def bit_sums(self) -> dict[str, dict[str, int]]:
        """By parameter and part, the `bit_sum` of this rank's elements."""
        sums: dict[str, dict[str, int]] = {}
        for stretch, tensor in self.tensors():
            sums.setdefault(stretch.name, {})[stretch.part] = bit_sum(tensor, stretch.start)
        return sums

    def _make_moments(self, owner: Tensor, step: int | None) -> None:
        """Give AdamW what it makes of a tensor at its first step, so many updates on; moments that are there stay."""
        if step is not None:
            state = self._optimizer.state[owner]
            state["step"] = torch.tensor(float(step), dtype=torch.float32, device=owner.device)
            for part in MOMENTS:
                if part not in state:
                    state[part] = torch.zeros_like(owner.data)

    @property
    def _flat_groups(self) -> list[Tensor]:
        """Stages 1 and 2: this rank's part of each group. Stage 1 in bf16 has an optimizer with a name of its own."""
        optimizer = self._engine.optimizer
        own = "fp32_groups_flat_partition"
        groups: list[Tensor] = getattr(optimizer, own if hasattr(optimizer, own) else "single_partition_of_fp32_groups")
        return groups

    def _shares(self, step: int | None = None, *, writing: bool = False) -> Iterator[Share]:
        """Trained parameters first: they are float32, and wide elements stand before narrow ones in a file.

        step: with so many updates made; AdamW gets the moments that it has then.
        """
        if self._stage == 3:
            yield from self._trained_stage_3(step, writing)
        elif self._stage == 0:
            for p, name in self._names.items():
                if p.requires_grad:
                    self._make_moments(p, step)
                    yield from self._replicated(p, name, self._optimizer.state.get(p, {}), writing)
        else:
            for flat in self._flat_groups:
                self._make_moments(flat, step)
            yield from self._trained_stage_1_2()
        yield from self._frozen(writing)
        if writing and self._stage == 3:
            # Small parameters are kept whole on every rank beside their parts.
            self._engine.optimizer.checkpoint_event_epilogue()

    def _trained_stage_3(self, step: int | None, writing: bool) -> Iterator[Share]:
        optimizer = self._engine.optimizer
        if writing:
            optimizer.checkpoint_event_prologue()  # nothing stays gathered
        for number, group in enumerate(optimizer.fp16_groups):
            swapped = optimizer._swappable_optimizer_subgroup(number)  # on NVMe
            if swapped:
                optimizer._optimizer_states_and_gradient_swap_in(number)
            try:
                yield from self._sub_group(group, optimizer.fp32_partitioned_groups_flat[number], step)
            finally:
                if swapped and not writing:
                    optimizer._release_swap_buffers(number)
            if writing:
                optimizer._reassign_or_swap_out_partitioned_parameters(number)
            if swapped and writing:
                optimizer._optimizer_states_and_gradient_swap_out(number)

    def _sub_group(self, group: list[Any], flat: Tensor, step: int | None) -> Iterator[Share]:
        self._make_moments(flat, step)
        offset = 0
        for p in group:
            part = p.partition_numel()
            start, length = self._own(p.ds_numel, part)
            if length:
                yield Share(self._names[p], start, _parts(flat, self._optimizer.state.get(flat, {}), offset, length))
            offset += part

    def _trained_stage_1_2(self) -> Iterator[Share]:
        for p, name in self._names.items():
            place = getattr(p, "_hp_mapping", None)
            if place is not None:
                flat, inside = self._flat_groups[place.param_group_index], place.hp_fragment_address
                parts = _parts(flat, self._optimizer.state.get(flat, {}), inside.start, inside.numel)
                yield Share(name, place.lp_fragment_address.start, parts)

    def _frozen(self, writing: bool = False) -> Iterator[Share]:
        for p, name in self._names.items():
            if not p.requires_grad and self._stage == 3:
                yield from self._frozen_stage_3(p, name)
            elif not p.requires_grad:
                yield from self._replicated(p, name, {}, writing)

    def _frozen_stage_3(self, p: Any, name: str) -> Iterator[Share]:
        start, length = self._own(p.ds_numel, p.partition_numel())
        if length:
            yield Share(name, start, {WEIGHT: p.ds_tensor.data.view(-1).narrow(0, 0, length)})

    def _replicated(self, p: nn.Parameter, name: str, state: Mapping[str, Any], writing: bool) -> Iterator[Share]:
        """What every rank has whole: written whole on each, read in parts."""
        numel = p.numel()
        start, length = (0, numel) if writing else self._own(numel, math.ceil(numel / self._ranks))
        if length:
            flat = {part: state[part].view(-1) for part in MOMENTS if part in state}
            yield Share(name, start, _parts(p.data.view(-1), flat, start, length))

    def _own(self, numel: int, part: int) -> tuple[int, int]:
        """(first element, elements) of this rank when each has `part` of them and the last what is left."""
        start = self._rank * part
        return start, max(0, min(part, numel - start))


def _slices_of(share: Share) -> Iterator[tuple[ShardSlice, Tensor]]:
    for part, tensor in share.tensors.items():
        yield ShardSlice(share.name, part, share.start, tensor.numel(), tensor.dtype), tensor


def _parts(flat: Tensor, state: Mapping[str, Any], offset: int, length: int) -> dict[str, Tensor]:
    whole = {WEIGHT: flat.data, **{part: state[part].data for part in MOMENTS if part in state}}
    return {part: tensor.narrow(0, offset, length) for part, tensor in whole.items()}
