"""The section `train` of a run file: how many steps of how many sequences, and in which precision."""

from dataclasses import dataclass
from typing import Literal

from megadec.common.errors import ConfigError, check_range

Precision = Literal["bf16", "fp32"]
PrecisionChoice = Literal["auto", "bf16", "fp32"]


def resolve_precision(choice: PrecisionChoice) -> Precision:
    """`auto` is bf16 where this machine's devices multiply it in hardware, and fp32 elsewhere."""
    if choice == "auto":
        from megadec.decoder.kernels.precision import has_bf16  # asks torch, which a wrong request need not wait for

        return "bf16" if has_bf16() else "fp32"
    return choice


@dataclass(frozen=True)
class TrainOptions:
    """The size and the precision of a run.

    steps: the last step; schedule and data depend on it.
    global_batch_size: sequences of a step over all ranks.
    micro_batch_size: sequences of one rank in one micro-step.
    precision: `auto` is bf16 where the hardware multiplies it, and fp32 elsewhere.
    stop_at_step: save and end there; a later start continues as if it had not stopped.
    sequence_parallel_size: ranks that share each sequence, each with a part of its tokens (Ulysses), for sequences that
        do not fit one device; micro_batch_size then counts the sequences of such a group.
    dry_run: before the first step of a start, take the largest micro-batch forward and backward once, so that too
        little memory is an error at once; no number depends on it.
    profile_steps: steps whose computation rank 0 writes as a trace into the run's folder `profiles`; they take longer.
    """

    steps: int = 1000
    global_batch_size: int = 64
    micro_batch_size: int = 8
    precision: PrecisionChoice = "auto"
    stop_at_step: int | None = None
    sequence_parallel_size: int = 1
    dry_run: bool = True
    profile_steps: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = ("steps", "global_batch_size", "micro_batch_size", "stop_at_step", "sequence_parallel_size")
        check_range(self, "train.", *counts, least=1)
        for step in self.profile_steps:
            if not 1 <= step <= self.steps:
                raise ConfigError(f"train.profile_steps has {step}, which is not from 1 to train.steps={self.steps}")
