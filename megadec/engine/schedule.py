"""The learning rate as a pure function of the step.

In comes a step number and the options, out goes a factor between 0 and 1 of the peak learning rate. No object with a
state to save, so a resumed run cannot disagree with one that was never stopped; a rate that follows the loss cannot be
expressed.
"""

import math
from dataclasses import dataclass
from typing import Literal

from megadec.common.errors import check_range


@dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate over the steps, as a factor of optimizer.learning_rate.

    kind: `cosine` is linear warmup, then half a cosine down to `final_fraction` of the peak at the last step
        (Loshchilov and Hutter, arXiv 1608.03983). `warmup_stable_decay` (WSD) is linear warmup, the peak, then over the
        last `decay_fraction` of all steps down along 1 - sqrt(progress) (Hägele et al., arXiv 2405.18392); the stable
        part can be prolonged.
    warmup_steps: steps of the warmup.
    final_fraction: the rate at the end, as a fraction of the peak.
    decay_fraction: the part of all steps that decays, with warmup_stable_decay.
    """

    kind: Literal["cosine", "warmup_stable_decay"] = "cosine"
    warmup_steps: int = 100
    final_fraction: float = 0.1
    decay_fraction: float = 0.2

    def __post_init__(self) -> None:
        check_range(self, "schedule.", "warmup_steps", least=0)
        check_range(self, "schedule.", "final_fraction", "decay_fraction", least=0, most=1)


def learning_rate_factor(options: ScheduleOptions, step: int, steps: int) -> float:
    """The factor of the peak rate for the update that leads from `step` to `step + 1`, of `steps` in all.

    Warmup starts above zero (1 / warmup_steps), so that no update is wasted. Past the last step the final value holds.
    """
    if step < options.warmup_steps:
        return (step + 1) / options.warmup_steps
    if options.kind == "cosine":
        progress = _progress(step, options.warmup_steps, steps)
        shape = 0.5 * (1.0 + math.cos(math.pi * progress))
    else:
        first_decay_step = max(options.warmup_steps, steps - round(options.decay_fraction * steps))
        shape = 1.0 if step < first_decay_step else 1.0 - math.sqrt(_progress(step, first_decay_step, steps))
    return options.final_fraction + (1.0 - options.final_fraction) * shape


def _progress(step: int, first: int, steps: int) -> float:
    """0 at `first`, 1 at the last update (steps - 1), linear between."""
    return min(1.0, (step - first) / max(1, steps - 1 - first))
