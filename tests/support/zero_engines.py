"""Stand-ins for DeepSpeed's engines: tensors that lie where each ZeRO stage keeps them, on one of several ranks."""

import math
from collections import defaultdict
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


def fake_engine(
    stage: int, rank: int, ranks: int, sizes: Mapping[str, tuple[int, ...]], frozen: str, *, on_disk: bool = False
) -> Any:
    """An engine of zeros. sizes: of the parameters, all trained but `frozen`. on_disk: ZeRO-3 keeps weights there."""
    parameters = {name: nn.Parameter(torch.zeros(size), name != frozen) for name, size in sizes.items()}
    module: Any = nn.ParameterDict(parameters)
    trained = [p for name, p in module.named_parameters() if name != frozen]
    if stage == 0:
        return SimpleNamespace(module=module, optimizer=SimpleNamespace(state=defaultdict(dict)))
    inner = SimpleNamespace(state=defaultdict(dict))
    if stage == 3:
        for p in module.values():
            part = math.ceil(p.numel() / ranks)
            p.ds_shape, p.ds_numel, p.ds_tensor = p.shape, p.numel(), torch.zeros(part)
            p.partition_numel = p.ds_tensor.numel
        return SimpleNamespace(module=module, optimizer=FakeZero3(inner, trained, on_disk))
    length = math.ceil(sum(p.numel() for p in trained) / ranks)
    begin = 0
    for p in trained:
        first, last = max(begin, rank * length), min(begin + p.numel(), (rank + 1) * length)
        if first < last:
            p._hp_mapping = SimpleNamespace(  # type: ignore[attr-defined]
                param_group_index=0,
                lp_fragment_address=SimpleNamespace(start=first - begin),
                hp_fragment_address=SimpleNamespace(start=first - rank * length, numel=last - first),
            )
        begin += p.numel()
    flat = [torch.zeros(length)]
    optimizer = SimpleNamespace(optimizer=inner, single_partition_of_fp32_groups=flat, update_lp_params=lambda: None)
    return SimpleNamespace(module=module, optimizer=optimizer)


class FakeZero3:
    """The optimizer of ZeRO-3 with one sub-group; on a disk its weights are gone from memory between uses."""

    def __init__(self, inner: Any, trained: list[Any], on_disk: bool) -> None:
        self.optimizer, self.fp16_groups = inner, [trained]
        weights = torch.zeros(sum(p.partition_numel() for p in trained))
        self.fp32_partitioned_groups_flat = [weights]
        self.calls: list[str] = []
        self._on_disk, self._disk = on_disk, weights.data
        if on_disk:
            weights.data = torch.empty(0)

    def checkpoint_event_prologue(self) -> None:
        self.calls.append("prologue")

    def checkpoint_event_epilogue(self) -> None:
        self.calls.append("epilogue")

    def _swappable_optimizer_subgroup(self, number: int) -> bool:
        return self._on_disk

    def _optimizer_states_and_gradient_swap_in(self, number: int) -> None:
        self.calls.append("swap in")
        self.fp32_partitioned_groups_flat[number].data = self._disk.clone()

    def _release_swap_buffers(self, number: int) -> None:
        self.calls.append("release")
        self.fp32_partitioned_groups_flat[number].data = torch.empty(0)

    def _reassign_or_swap_out_partitioned_parameters(self, number: int) -> None:
        self.calls.append("reassign")

    def _optimizer_states_and_gradient_swap_out(self, number: int) -> None:
        self.calls.append("swap out")
        self._disk = self.fp32_partitioned_groups_flat[number].data
        self.fp32_partitioned_groups_flat[number].data = torch.empty(0)
