"""Gradients between the last backward pass of a step and its update: measured, and let through or skipped.

DeepSpeed 0.19 has no public hook between reducing and updating, so its optimizer's own methods are asked for the global
norm, and an update is skipped in the way that DeepSpeed has for overflows. By itself DeepSpeed (0.19.8, source) skips a
step whose norm is not finite at stages 1 to 3 and applies it at stage 0; it never says which rank it came from, which
can be seen only before gradients are reduced.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

GlobalNorm = Callable[[list[Tensor]], Tensor]
INVALID = -1.0  # how DeepSpeed writes a norm that is infinite or not a number


class OwnGradients(NamedTuple):
    """One rank's gradients before they are reduced, as each micro-step left them in `.grad`.

    `norm`: the root of the sum of their squares over parameters and micro-steps. It is not the norm of the step's
    gradient, and where `.grad` stays until the update (stage 0, stage 1 in fp32) the first micro-steps count more
    often; it only compares ranks of one step, to name the one with the most.
    `first_not_finite`: the first parameter in the order of the backward pass where it is not finite, as its number
    among `GradientWatch.names`; -1 for none.
    """

    norm: float
    first_not_finite: int


class GradientWatch:
    """Hooks that take the norm of each parameter's gradient as it comes, before DeepSpeed's own take it away.

    Make it before DeepSpeed's engine: hooks run in the order in which they were registered. Nothing is copied to the
    host until `read`, so a step waits for it no longer than for its loss.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self.names: list[str] = []
        self._seen: list[tuple[int, Tensor]] = []
        for name, parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(partial(self._look, len(self.names)))
                self.names.append(name)

    def _look(self, number: int, parameter: Tensor) -> None:
        if parameter.grad is not None:
            self._seen.append((number, torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)))

    def read(self) -> OwnGradients:
        """What came since the last call, which is forgotten."""
        if not self._seen:
            return OwnGradients(0.0, -1)
        numbers, tensors = zip(*self._seen, strict=True)
        norms = torch.stack(tensors).tolist()
        self._seen = []
        broken = next((number for number, norm in zip(numbers, norms, strict=True) if not math.isfinite(norm)), -1)
        return OwnGradients(math.hypot(*norms), broken)


class PlainGate:
    """Stage 0 in fp32: torch's own optimizer, no norm of DeepSpeed's, and no check."""

    def __init__(self, deepspeed_engine: Any) -> None:
        self._engine = deepspeed_engine

    def norm(self) -> Tensor:
        """After the last backward every rank holds the whole mean gradient."""
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def skip(self) -> None:
        """Have the next step of the optimizer do nothing."""
        _once(self._engine.optimizer, lambda: None)


class Zero1Bf16Gate:
    """Stage 1 in bf16 with gradients in fp32, which DeepSpeed gives to another optimizer than the rest of stage 1."""

    def __init__(self, deepspeed_engine: Any, global_norm: GlobalNorm) -> None:
        self._optimizer, self._global_norm = deepspeed_engine.optimizer, global_norm

    def norm(self) -> Tensor:
        """Here the norm is computed twice: DeepSpeed computes it again in the middle of its step."""
        return self._global_norm(self._optimizer.get_grads_for_norm()[0])

    def skip(self) -> None:
        """Have the next step forget the gradients and do nothing else."""

        def forget() -> None:
            self._optimizer.overflow = True
            self._optimizer.clear_hp_grads()
            self._optimizer.clear_lp_grads()

        _once(self._optimizer, forget)


class Zero12Gate:
    """Stages 1 and 2."""

    def __init__(self, deepspeed_engine: Any) -> None:
        self._optimizer = deepspeed_engine.optimizer
        self._skips = False
        self._norm = _Kept(self._optimizer, "scaled_global_norm")
        # Its own check reads all gradients once more before it takes their norm; ours has said already.
        self._optimizer.check_grad_overflow = True
        self._optimizer.check_overflow = self._check_overflow

    def norm(self) -> Tensor:
        """The global norm, kept for DeepSpeed's step."""
        norm: Tensor = self._norm.compute()
        return norm

    def skip(self) -> None:
        """Have the next step take the way of an overflow."""
        self._skips, self._norm.value = True, None

    def _check_overflow(self, partition_gradients: bool = True) -> None:
        self._optimizer.overflow, self._skips = self._skips, False


class Zero3Gate:
    """Stage 3, whose step takes the way of an overflow when the norm of a group of parameters is invalid."""

    def __init__(self, deepspeed_engine: Any, combine: GlobalNorm) -> None:
        self._combine = combine
        self._norms = _Kept(deepspeed_engine.optimizer, "_get_norm_groups")

    def norm(self) -> Tensor:
        """The global norm; those of the groups are kept for DeepSpeed's step."""
        return self._combine(self._norms.compute())

    def skip(self) -> None:
        """Have the next step take the way of an overflow."""
        self._norms.value = [torch.tensor(INVALID)]


Gate = PlainGate | Zero1Bf16Gate | Zero12Gate | Zero3Gate


def gate_of(deepspeed_engine: Any, stage: int, global_norm: GlobalNorm, combine: GlobalNorm) -> Gate:
    """The gate before this engine's updates. global_norm, combine: DeepSpeed's own functions."""
    if stage == 3:
        return Zero3Gate(deepspeed_engine, combine)
    if hasattr(deepspeed_engine.optimizer, "scaled_global_norm"):
        return Zero12Gate(deepspeed_engine)
    if hasattr(deepspeed_engine.optimizer, "clear_hp_grads"):
        return Zero1Bf16Gate(deepspeed_engine, global_norm)
    return PlainGate(deepspeed_engine)


class _Kept:
    """Replaces an object's method: returns `value` once where it is set, and else what the method computes."""

    def __init__(self, owner: Any, name: str) -> None:
        self._method = getattr(owner, name)
        self.value: Any = None
        setattr(owner, name, self)

    def __call__(self, *_: Any, **__: Any) -> Any:
        value, self.value = self.value, None
        return self._method() if value is None else value

    def compute(self) -> Any:
        """Compute it now, and keep it for the next call."""
        self.value = self._method()
        return self.value


def _once(optimizer: Any, step: Callable[[], None]) -> None:
    """Call `step` in place of the optimizer's next step."""

    def instead(*_: Any, **__: Any) -> None:
        del optimizer.step
        step()

    optimizer.step = instead


def keep_in_place(optimizer: Any) -> None:
    """Pass AdamW a view of ZeRO-3's flat gradient buffer; DeepSpeed 0.19 would copy it (all gradients once more)."""
    copy = optimizer.flatten

    def flatten(tensors: Sequence[Tensor]) -> Tensor:
        buffer = getattr(optimizer, "grad_partitions_flat_buffer", None)
        view: Tensor | None = None if buffer is None else view_of(buffer, tensors)
        return copy(tensors) if view is None else view

    optimizer.flatten = flatten


def view_of(buffer: Tensor, parts: Sequence[Tensor]) -> Tensor | None:
    """The part of a flat buffer that consists of these parts in this order, or None where they do not lie so."""
    begin = end = parts[0].data_ptr()
    for part in parts:
        if part.data_ptr() != end or part.dtype != buffer.dtype or not part.is_contiguous():
            return None
        end += part.nbytes
    first = begin - buffer.data_ptr()
    if first < 0 or first + (end - begin) > buffer.nbytes:
        return None
    return buffer.narrow(0, first // buffer.element_size(), (end - begin) // buffer.element_size())
