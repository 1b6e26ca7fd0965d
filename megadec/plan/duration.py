"""How long a run takes: machines and work in, tokens a second and days out.

In: a shape, what is computed again, devices with their peak and the share of it that they are believed to reach. Out:
plain numbers. One stated utilization stands for kernels, network and data together; whoever has measured one says it
better than a model of them could.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from megadec.common.errors import ConfigError
from megadec.decoder.flops import attention_flops, flops_per_token, parameter_table
from megadec.decoder.recompute import KEEPABLE, Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics.device import PEAK_FLOPS_BY_NAME

GIB = 2**30
# Left free for what a plan does not count. CUDA: what its allocator keeps beside the bytes in use, a round number that
# nobody has measured here. CPU: where the plan is too low. What glibc keeps is counted as bf16 runs kept it
# (plan_memory.KEPT_SHARE); their plans stood up to 5 % below the resident peak at one rank and up to 13 % at two, and
# fp32 keeps more (docs/log.md).
MARGINS = {"cuda": 0.1, "cpu": 0.25}


@dataclass(frozen=True)
class Machines:
    """ranks: devices that train together. memory_gib: of one of them; of the share of the host's memory on a CPU.

    kind: cuda or cpu. device: a name that the metrics know (H100, A100, ...), for its peak; peak_flops in its place.
    utilization: the share of the peak that a rank reaches in all that it computes, what it computes again included.
    margin: the share of the memory to leave free, for what an allocator keeps and for the unforeseen; a tenth, on a CPU
    a quarter, when left out. host_memory_gib:
    of the host for each of its ranks, for what is offloaded; not looked at where it is left out.
    """

    ranks: int = 1
    memory_gib: float = 80.0
    kind: Literal["cuda", "cpu"] = "cuda"
    device: str | None = None
    peak_flops: float | None = None
    utilization: float = 0.4
    margin: float | None = None
    host_memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise ConfigError(f"ranks={self.ranks} is not at least 1")
        for name in ("memory_gib", "peak_flops", "host_memory_gib"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ConfigError(f"{name}={value} is not above 0")
        if not 0 < self.utilization <= 1:
            raise ConfigError(f"utilization={self.utilization} is not in (0, 1]: it is a share of the peak")
        if self.margin is not None and not 0 <= self.margin < 1:
            raise ConfigError(f"margin={self.margin} is not in [0, 1)")
        if self.device is not None and self.device not in PEAK_FLOPS_BY_NAME:
            known = ", ".join(PEAK_FLOPS_BY_NAME)
            raise ConfigError(f"device={self.device!r} is none of {known}; state its peak_flops instead")

    @property
    def peak(self) -> float | None:
        """Operations a second of one device at its peak, or None where nobody said."""
        return self.peak_flops or (PEAK_FLOPS_BY_NAME[self.device] if self.device else None)

    @property
    def left_free(self) -> float:
        """The margin that holds."""
        return MARGINS[self.kind] if self.margin is None else self.margin

    @property
    def usable_bytes(self) -> int:
        """Memory of a device without the margin."""
        return int(self.memory_gib * GIB * (1 - self.left_free))


@dataclass(frozen=True)
class Work:
    """What is to be trained: rows of a step over all ranks, steps, and how long a document is in the mean."""

    global_batch_size: int
    sequence_length: int
    steps: int
    document_tokens: float

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.global_batch_size * self.sequence_length * self.steps


@functools.lru_cache(maxsize=256)
def again_fraction(shape: DecoderShape, recompute: Recompute, document_tokens: float) -> float:
    """Operations of the second passes over blocks as a share of the model's own.

    A block ends its second pass at what its gradient needs: the last product, `down`, is not done again.
    """
    block = {name: size for name, size in parameter_table(shape).items() if name.startswith("layers.0.")}
    numbers = {
        name.removeprefix("layers.0.").removesuffix(".weight"): a[0] * a[1] for name, a in block.items() if a[1:]
    }
    attention = attention_flops(shape, 1) * document_tokens / 3 / shape.layers
    kept = set(recompute.keep) if recompute.mode == "selective" else set()
    skipped = {"mlp.down_proj"}.union(*(KEEPABLE[name] for name in kept))
    one = sum(2.0 * count for name, count in numbers.items() if name not in skipped)
    one += 0.0 if "attention" in kept else attention
    blocks = sum(recompute.applies_to(layer) for layer in range(shape.layers))
    return blocks * one / flops_per_token(shape, document_tokens)


def speed_of(shape: DecoderShape, again: float, machines: Machines, work: Work) -> dict[str, float] | None:
    """Tokens a second over all ranks, seconds a step, days, and the share of the peak that is the model's own work."""
    if machines.peak is None:
        return None
    useful = flops_per_token(shape, work.document_tokens)
    rate = machines.ranks * machines.peak * machines.utilization / (useful * (1 + again))
    return {
        "model_flops_per_token": useful,
        "tokens_per_second": rate,
        "seconds_per_step": work.global_batch_size * work.sequence_length / rate,
        "days": work.tokens / rate / 86400,
        "mfu": machines.utilization / (1 + again),
    }
