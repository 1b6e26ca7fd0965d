"""What a plan is made of: the run as far as it takes memory, the machines, and the work to be done."""

import functools
import time
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch

from megadec.common.errors import ConfigError, check_range, suggest
from megadec.decoder.execution import PLAIN, Execution, Recompute
from megadec.decoder.flops import parameter_count
from megadec.decoder.shape import DecoderShape
from megadec.engine.metrics.devices import DEVICES, Device, find_device
from megadec.engine.train_options import Precision

Location = Literal["device", "host", "disk"]
LOCATIONS: dict[str, Location] = {"none": "device", "cpu": "host", "nvme": "disk"}

GIB = 2**30
FP32 = 4
# What DeepSpeed 0.19 takes where the file does not say.
REDUCE_BUCKET, MAX_LIVE, PREFETCH_BUCKET = 500_000_000, 1_000_000_000, 50_000_000
# Of a device that nobody named.
USUAL_MEMORY_GIB = 80.0
# Left free for what a plan does not count. CUDA: what its allocator keeps beside the bytes in use, a round number that
# nobody has measured here. CPU: where the plan is too low. What glibc keeps is counted as bf16 runs kept it
# (memory.KEPT_SHARE); their plans stood up to 5 % below the resident peak at one rank and up to 13 % at two, and fp32
# keeps more (docs/log.md).
MARGINS = {"cuda": 0.1, "cpu": 0.25}

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

    @property
    def places(self) -> set[Location]:
        """Where weights and optimizer state are."""
        return {self.optimizer_at, self.parameters_at}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From a merged DeepSpeed dictionary."""
        zero = values.get("zero_optimization", {})
        optimizer, parameters = (zero.get(f"offload_{name}") or {} for name in ("optimizer", "param"))
        swap = parameters.get("buffer_count", 5) * parameters.get("buffer_size", 100_000_000) * 2
        return cls(
            stage=int(zero.get("stage", 0)),
            reduce_bucket=int(zero.get("reduce_bucket_size", REDUCE_BUCKET)),
            max_live=int(zero.get("stage3_max_live_parameters", MAX_LIVE)),
            prefetch_bucket=int(zero.get("stage3_prefetch_bucket_size", PREFETCH_BUCKET)),
            optimizer_at=LOCATIONS[optimizer.get("device", "none")],
            parameters_at=LOCATIONS[parameters.get("device", "none")],
            swap_buffers=int(swap) if parameters.get("device") == "nvme" else 0,
        )


@dataclass(frozen=True)
class Setup:
    """Everything that a rank's memory depends on.

    micro_batch_size: sequences of a group of sequence_parallel_size ranks in a micro-step. device: a `cpu` has the
    buckets' untouched pages for nothing, and its host is its device. saves_behind: the host holds a copy of a rank's
    state, written while training goes on, where it has at most snapshot_bytes (None: where it is on no disk).
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
    def recompute(self) -> Recompute:
        """What is computed again."""
        return self.execution.recompute

    def with_recompute(self, recompute: Recompute) -> Self:
        """The same under another policy."""
        return replace(self, execution=replace(self.execution, recompute=recompute))

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

    def share(self, numbers: int) -> int:
        """A rank's part of numbers that are divided among all ranks."""
        return -(-numbers // self.ranks)


def measured_flops(size: int = 1024, seconds: float = 0.5) -> float:
    """Operations a second of a float32 matrix product on this machine, with the threads that a rank has."""
    left, right = torch.rand(size, size), torch.rand(size, size)
    torch.mm(left, right)
    products, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        torch.mm(left, right)
        products += 1
    return 2 * size**3 * products / (time.perf_counter() - begun)


@dataclass(frozen=True)
class Machines:
    """ranks: devices that train together. device: a name that --devices lists (H100, RTX-4090, ...), or cpu.
    memory_gib: of one device, in place of the named one's (80 where none is named); of the share of the host's memory
    on a CPU.
    peak_flops: operations a second of one device at its peak, in place of the named one's; left out for a CPU, a matrix
    product is measured on this machine. memory_bandwidth: bytes a second of one device's memory, in place of the named
    one's; where it is known, the time of an update is counted.

    kind: cuda or cpu. utilization: the share of the peak that a rank reaches in all that it computes, what it computes
    again included. margin: the share of the memory to leave free; a tenth, on a CPU a quarter, when left out.
    host_memory_gib: of the host for each of its ranks, for what is offloaded; not looked at where it is left out.
    host_bandwidth: bytes a second that a rank sends to its host, gets from it, and reads and writes there, for the time
    of what is offloaded (about 25e9 over PCIe 4.0 x16).
    """

    ranks: int = 1
    memory_gib: float | None = None
    kind: Literal["cuda", "cpu"] = "cuda"
    device: str | None = None
    peak_flops: float | None = None
    memory_bandwidth: float | None = None
    utilization: float = 0.4
    margin: float | None = None
    host_memory_gib: float | None = None
    host_bandwidth: float = 25e9

    def __post_init__(self) -> None:
        numbers = ("memory_gib", "peak_flops", "memory_bandwidth", "host_memory_gib", "host_bandwidth")
        check_range(self, "", "ranks", least=1)
        check_range(self, "", *numbers, above=0)
        check_range(self, "", "margin", least=0, below=1)
        if not 0 < self.utilization <= 1:
            raise ConfigError(f"utilization={self.utilization} is not in (0, 1]: it is a share of the peak")
        if self.device is not None and self.peak_flops is None and self.known is None:
            raise ConfigError(
                f"device={self.device!r} is none of {', '.join(DEVICES)}{suggest(self.device, DEVICES)}; state its"
                " --peak_flops and --memory_gib"
            )

    @property
    def known(self) -> Device | None:
        """What the table says of the named device."""
        return find_device(self.device) if self.device else None

    @property
    def capacity_gib(self) -> float:
        """Memory of one device."""
        return self.memory_gib or (self.known.memory_gib if self.known else USUAL_MEMORY_GIB)

    @property
    def peak(self) -> float | None:
        """Operations a second of one device at its peak, or None where nobody said."""
        return self.peak_flops or (self.known.peak_flops if self.known else None)

    @property
    def precision(self) -> Precision:
        """What `auto` is on these GPUs: all that a plan knows have bf16, but for those that the table says have not."""
        return "fp32" if self.known and not self.known.bf16 else "bf16"

    @property
    def bandwidth(self) -> float | None:
        """Bytes a second of one device's memory, or None where nobody said."""
        return self.memory_bandwidth or (self.known.memory_bandwidth if self.known else None)

    @property
    def left_free(self) -> float:
        """The margin that holds."""
        return MARGINS[self.kind] if self.margin is None else self.margin

    def has_room(self, device_bytes: int) -> bool:
        """Whether so much fits on a device with the margin."""
        return device_bytes <= int(self.capacity_gib * GIB * (1 - self.left_free))

    def has_host_room(self, host_bytes: int) -> bool:
        """Whether so much fits in the host's memory with the margin; where that is not stated, it does."""
        return self.host_memory_gib is None or host_bytes <= self.host_memory_gib * GIB * (1 - self.left_free)


@dataclass(frozen=True)
class Work:
    """What is to be trained: sequences of a step over all ranks, steps, and how long a document is in the mean."""

    global_batch_size: int
    sequence_length: int
    steps: int
    document_tokens: float

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.global_batch_size * self.sequence_length * self.steps
