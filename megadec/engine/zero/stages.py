"""Where DeepSpeed 0.19 keeps a rank's weights and AdamW's moments: a class for each ZeRO stage, one interface.

DeepSpeed's own `safe_get_local_...` and `safe_set_full_...` reach the same tensors one at a time, with a message or a
copy for each, and without the moments that are not there before the first step. How a stage holds back an update is in
gradients.py.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn


class Fragment(NamedTuple):
    """Elements [start, start + length) of the flattened parameter `name`, from `offset` on in the tensor of a group."""

    name: str
    start: int
    length: int
    offset: int


class Group(NamedTuple):
    """A tensor of weights and what this rank has in it; AdamW keeps the moments of a trained one under `weights`.

    sub_group: its number among those of ZeRO-3; None for what is frozen, and at the other stages.
    """

    weights: Tensor
    fragments: list[Fragment]
    trained: bool
    sub_group: int | None = None


class Stage0:
    """Every rank has everything; to save, it answers for the part that stage 3 would give it."""

    def __init__(self, deepspeed_engine: Any, names: Mapping[nn.Parameter, str], rank: int, world_size: int) -> None:
        self._optimizer = deepspeed_engine.optimizer
        # Torch's AdamW, whose state holds the moments; inside DeepSpeed's optimizer at stages 1 to 3.
        self.adamw = getattr(self._optimizer, "optimizer", self._optimizer)
        self._names = names
        self._rank, self._world_size = rank, world_size

    @property
    def on_disk(self) -> bool:
        """Whether weights and moments are on a disk between steps."""
        return False

    def groups(self, *, loading: bool) -> list[Group]:
        """What is trained, then what is frozen. loading: all that is to be filled, also what other ranks save."""
        return [*self._trained(loading), *self._frozen(loading)]

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around filling all groups: brings the weights that the model computes with into line at the end."""
        yield

    @contextmanager
    def in_memory(self, group: Group, *, loading: bool) -> Iterator[None]:
        """Around using a group: reads it from a disk if it is there, and writes it back if it was filled."""
        yield

    def _trained(self, loading: bool) -> list[Group]:
        return [self._replicated(p, loading) for p in self._names if p.requires_grad]

    def _frozen(self, loading: bool) -> list[Group]:
        return [self._replicated(p, loading) for p in self._names if not p.requires_grad]

    def _replicated(self, p: nn.Parameter, loading: bool) -> Group:
        start, length = (0, p.numel()) if loading else self._own(p.numel())
        return Group(p, [Fragment(self._names[p], start, length, start)], p.requires_grad)

    def _own(self, numel: int) -> tuple[int, int]:
        """(first element, elements) of this rank when the ranks have equal parts and the last what is left."""
        part = math.ceil(numel / self._world_size)
        start = self._rank * part
        return start, max(0, min(part, numel - start))


class Stage12(Stage0):
    """The parameters of an optimizer group lie end to end and are cut by ranks; frozen ones are whole on every rank."""

    @contextmanager
    def loading(self) -> Iterator[None]:
        """See Stage0."""
        yield
        self._optimizer.update_lp_params()

    def _trained(self, loading: bool) -> list[Group]:
        # Stage 1 in bf16 has another optimizer, which has another name for them.
        own = "fp32_groups_flat_partition"
        flat = getattr(self._optimizer, own if hasattr(self._optimizer, own) else "single_partition_of_fp32_groups")
        groups = [Group(weights, [], True) for weights in flat]
        for p, name in self._names.items():
            if (mapping := getattr(p, "_hp_mapping", None)) is not None:
                inside = mapping.hp_fragment_address
                fragment = Fragment(name, mapping.lp_fragment_address.start, inside.numel, inside.start)
                groups[mapping.param_group_index].fragments.append(fragment)
        return groups


class Stage3(Stage12):
    """Each parameter is cut by ranks, and the parts of a sub-group lie end to end, some sub-groups on NVMe."""

    @property
    def on_disk(self) -> bool:
        """See Stage0."""
        return any(map(self._optimizer._swappable_optimizer_subgroup, range(len(self._optimizer.fp16_groups))))

    @contextmanager
    def loading(self) -> Iterator[None]:
        """See Stage0."""
        self._optimizer.checkpoint_event_prologue()  # nothing stays gathered
        yield
        self._optimizer.checkpoint_event_epilogue()  # small parameters are whole on every rank beside their parts

    @contextmanager
    def in_memory(self, group: Group, *, loading: bool) -> Iterator[None]:
        """See Stage0."""
        optimizer, number = self._optimizer, group.sub_group
        swapped = number is not None and optimizer._swappable_optimizer_subgroup(number)
        if swapped:
            optimizer._optimizer_states_and_gradient_swap_in(number)
        try:
            yield
        finally:
            if swapped and not loading:
                optimizer._release_swap_buffers(number)
        if loading and number is not None:
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
            if swapped:
                optimizer._optimizer_states_and_gradient_swap_out(number)

    def _trained(self, loading: bool) -> list[Group]:
        groups = []
        for number, parameters in enumerate(self._optimizer.fp16_groups):
            fragments, offset = [], 0
            for p in parameters:
                fragments.append(Fragment(self._names[p], *self._own(p.ds_numel), offset))
                offset += p.partition_numel()
            groups.append(Group(self._optimizer.fp32_partitioned_groups_flat[number], fragments, True, number))
        return groups

    def _frozen(self, loading: bool) -> list[Group]:
        frozen: list[tuple[Any, str]] = [(p, name) for p, name in self._names.items() if not p.requires_grad]
        return [Group(p.ds_tensor, [Fragment(name, *self._own(p.ds_numel), 0)], False) for p, name in frozen]


STAGES = (Stage0, Stage12, Stage12, Stage3)
