"""What a rank's memory depends on: a shape, a policy, a DeepSpeed file's settings, a batch, a kind of device.

In: a run's own values, or a merged DeepSpeed dictionary. Out: frozen values that plan_memory.py and plan_activations.py
count with. Only settings that take memory are kept here; what DeepSpeed does with the others is not planned.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.flops import parameter_count
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.zero.settings import Precision

Location = Literal["device", "host", "disk"]

FP32 = 4
# What DeepSpeed 0.19 takes where the file does not say.
REDUCE_BUCKET, MAX_LIVE, PREFETCH_BUCKET = 500_000_000, 1_000_000_000, 50_000_000

_count = functools.lru_cache(maxsize=64)(parameter_count)


@dataclass(frozen=True)
class Zero:
    """What a DeepSpeed file says that takes memory; buckets in numbers, as there."""

    stage: int = 3
    reduce_bucket: int = 50_000_000
    max_live: int = MAX_LIVE
    prefetch_bucket: int = PREFETCH_BUCKET
    optimizer_at: Location = "device"
    parameters_at: Location = "device"
    swap_buffers: int = 0
    """Bytes of host memory that wait between the device and a disk."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Zero:
        """From a merged DeepSpeed dictionary."""
        zero = values.get("zero_optimization", {})
        places: dict[str, Location] = {"cpu": "host", "nvme": "disk", "none": "device"}
        optimizer, parameters = (zero.get(f"offload_{name}") or {} for name in ("optimizer", "param"))
        swap = parameters.get("buffer_count", 5) * parameters.get("buffer_size", 100_000_000) * 2
        return cls(
            stage=int(zero.get("stage", 0)),
            reduce_bucket=int(zero.get("reduce_bucket_size", REDUCE_BUCKET)),
            max_live=int(zero.get("stage3_max_live_parameters", MAX_LIVE)),
            prefetch_bucket=int(zero.get("stage3_prefetch_bucket_size", PREFETCH_BUCKET)),
            optimizer_at=places[optimizer.get("device", "none")],
            parameters_at=places[parameters.get("device", "none")],
            swap_buffers=int(swap) if parameters.get("device") == "nvme" else 0,
        )


@dataclass(frozen=True)
class Setup:
    """Everything that a rank's memory depends on. micro_batch_size: rows of a group of sequence_parallel_size in a
    micro-step.

    device: `cpu` has the buckets' untouched pages for nothing, and its host is its device. saves_behind: the host holds
    a copy of a rank's state, written while training goes on, where it has at most snapshot_bytes (None: where it is on
    no disk).
    """

    shape: DecoderShape
    zero: Zero = Zero()
    precision: Precision = "bf16"
    ranks: int = 1
    sequence_parallel_size: int = 1
    micro_batch_size: int = 8
    sequence_length: int = 1024
    execution: Execution = PLAIN
    dropout: float = 0.0
    device: Literal["cuda", "cpu"] = "cuda"
    saves_behind: bool = False
    snapshot_bytes: int | None = None

    @property
    def snapshot(self) -> int:
        """Bytes of the copy for saves (checkpoint/snapshot.py): this rank's share of fp32 weights and both moments."""
        size = 3 * FP32 * -(-self.parameters // self.ranks)
        # As engine/checkpoint/checkpointer.py decides.
        fits = self.zero.optimizer_at != "disk" if self.snapshot_bytes is None else size <= self.snapshot_bytes
        return size if self.saves_behind and fits else 0

    @property
    def item(self) -> int:
        """Bytes of a weight and of an activation."""
        return 2 if self.precision == "bf16" else FP32

    @property
    def tokens(self) -> int:
        """Tokens of a micro-step whose activations a rank holds."""
        return self.micro_batch_size * self.sequence_length // self.sequence_parallel_size

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return _count(self.shape)

    @property
    def embedding(self) -> int:
        """Numbers of the embedding, or of the head."""
        return self.shape.vocabulary_size * self.shape.hidden_size

    def with_recompute(self, recompute: Recompute) -> Setup:
        """The same under another policy."""
        return replace(self, execution=replace(self.execution, recompute=recompute))
