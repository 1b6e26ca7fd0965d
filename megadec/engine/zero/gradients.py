"""Gradients between the last backward pass of a step and its update: looked at, and let through or refused.

In come DeepSpeed's engine and its model; out go each rank's own size of them, taken before they are reduced (which rank
brought what is not a number can be seen only then), the global norm, and an update that DeepSpeed leaves out by the way
it has for overflows. DeepSpeed 0.19 has no public place between reducing and updating, so the norm is asked of its
optimizer by the names of its own methods; it is computed once, and handed back when DeepSpeed asks for it.

What DeepSpeed would do by itself (0.19.8, source): stages 2 and 3 and stage 1 in bf16 skip a step whose norm is not
finite; stages 1 and 2 in fp32 do too; stage 0 applies it. None says which rank it came from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

GlobalNorm = Callable[[list[Tensor]], Tensor]
INVALID = -1.0  # how DeepSpeed writes a norm that is infinite or not a number


class OwnGradients(NamedTuple):
    """One rank's gradients before they are reduced, as each micro-step left them in `.grad`.

    `norm`: the root of the squares of all that, added up over parameters and micro-steps. That is not the norm of the
    step's gradient; and where `.grad` stays until the update (stage 0, stage 1 in fp32) a micro-step leaves the sum so
    far, so the first ones count more often. It only compares ranks of one step, to name the one with the most.
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
        self._seen: list[int] = []
        self._norms: list[Tensor] = []
        for name, parameter in parameters:
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._hook(len(self.names)))
                self.names.append(name)

    def _hook(self, number: int) -> Callable[[Tensor], None]:
        def look(parameter: Tensor) -> None:
            if parameter.grad is not None:
                self._seen.append(number)
                self._norms.append(torch.linalg.vector_norm(parameter.grad, dtype=torch.float32))

        return look

    def read(self) -> OwnGradients:
        """What came since the last call, which is forgotten."""
        if not self._norms:
            return OwnGradients(0.0, -1)
        norms, seen = torch.stack(self._norms).tolist(), self._seen
        self._norms, self._seen = [], []
        broken = next((number for number, norm in zip(seen, norms, strict=True) if not math.isfinite(norm)), -1)
        return OwnGradients(math.hypot(*norms), broken)


class PlainGate:
    """Stage 0 in fp32: torch's own optimizer, no norm of DeepSpeed's, and no check."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def norm(self) -> Tensor:
        """After the last backward every rank holds the whole mean gradient."""
        gradients = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def refuse(self) -> None:
        """Have the next step of the optimizer do nothing."""
        _once(self._engine.optimizer, lambda *_, **__: None)


class Zero1Bf16Gate:
    """Stage 1 in bf16 with gradients in fp32, which DeepSpeed gives to another optimizer than the rest of stage 1."""

    def __init__(self, engine: Any, global_norm: GlobalNorm) -> None:
        self._optimizer, self._global_norm = engine.optimizer, global_norm

    def norm(self) -> Tensor:
        """Here the norm is taken twice: DeepSpeed computes it in the middle of its step."""
        return self._global_norm(self._optimizer.get_grads_for_norm()[0])

    def refuse(self) -> None:
        """Have the next step forget the gradients and do nothing else."""

        def forget(*_: Any, **__: Any) -> None:
            self._optimizer.overflow = True
            self._optimizer.clear_hp_grads()
            self._optimizer.clear_lp_grads()

        _once(self._optimizer, forget)


class Zero12Gate:
    """Stages 1 and 2."""

    def __init__(self, engine: Any) -> None:
        self._optimizer = engine.optimizer
        self._refused = False
        self._known: Tensor | None = None
        self._compute = self._optimizer.scaled_global_norm
        # Its own check reads all gradients once more before it takes their norm; ours has said already.
        self._optimizer.check_grad_overflow = True
        self._optimizer.check_overflow = self._verdict
        self._optimizer.scaled_global_norm = self._handed_back

    def norm(self) -> Tensor:
        """The global norm, kept for DeepSpeed's step."""
        self._known = self._compute()
        return self._known

    def refuse(self) -> None:
        """Have the next step take the way of an overflow."""
        self._refused, self._known = True, None

    def _verdict(self, partition_gradients: bool = True) -> None:
        self._optimizer.overflow, self._refused = self._refused, False

    def _handed_back(self, norm_type: int = 2) -> Tensor:
        known, self._known = self._known, None
        return self._compute() if known is None else known


class Zero3Gate:
    """Stage 3, whose step takes the way of an overflow when the norm of a group of parameters is invalid."""

    def __init__(self, engine: Any, combine: GlobalNorm) -> None:
        self._combine = combine
        self._known: list[Tensor] | None = None
        self._compute = engine.optimizer._get_norm_groups
        engine.optimizer._get_norm_groups = self._handed_back

    def norm(self) -> Tensor:
        """The global norm; those of the groups are kept for DeepSpeed's step."""
        self._known = self._compute()
        return self._combine(self._known)

    def refuse(self) -> None:
        """Have the next step take the way of an overflow."""
        self._known = [torch.tensor(INVALID)]

    def _handed_back(self) -> list[Tensor]:
        known, self._known = self._known, None
        return self._compute() if known is None else known


Gate = PlainGate | Zero1Bf16Gate | Zero12Gate | Zero3Gate


def gate_of(engine: Any, stage: int, global_norm: GlobalNorm, combine: GlobalNorm) -> Gate:
    """The gate before this engine's updates. global_norm, combine: DeepSpeed's own functions."""
    if stage == 3:
        return Zero3Gate(engine, combine)
    if hasattr(engine.optimizer, "scaled_global_norm"):
        return Zero12Gate(engine)
    if hasattr(engine.optimizer, "clear_hp_grads"):
        return Zero1Bf16Gate(engine, global_norm)
    return PlainGate(engine)


def _once(optimizer: Any, step: Callable[..., None]) -> None:
    """Call `step` in place of the optimizer's next step."""

    def instead(*arguments: Any, **options: Any) -> None:
        del optimizer.step
        step(*arguments, **options)

    optimizer.step = instead
