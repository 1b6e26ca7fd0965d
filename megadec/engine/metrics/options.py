"""Which metrics a run keeps, and where they go."""

from __future__ import annotations

from dataclasses import dataclass

from megadec.common.errors import ConfigError

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class MetricsOptions:
    """`peak_flops`: what one device could do a second, for the utilization; unknown where it is left out on a CPU.

    tensorboard, wandb, swanlab: where the figures go beside metrics.jsonl; the latter two are extras. project: the name
    that they file runs under. offline: they keep to the run's folder and need no network.
    """

    tensorboard: bool = True
    wandb: bool = False
    swanlab: bool = False
    project: str = "megadec"
    offline: bool = False
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if self.peak_flops is not None and self.peak_flops <= 0:
            raise ConfigError(f"metrics.peak_flops={self.peak_flops} is not above 0")
