"""How much memory a rank needs in a training step, by part, and when in the step.

In: a shape, a policy, ZeRO's settings, a batch. Out: bytes by part at six moments of a step, the largest of which is
the peak. Every term was read in the code that allocates it: the activations in decoder/, the buffers in DeepSpeed
0.19's optimizers. Two things are measured and not counted: what a process has without a model (`FRAMEWORK_BYTES`), and
the freed blocks that the C library keeps on a CPU (`KEPT_SHARE`). On a GPU bytes in use are stated, as
torch.cuda.max_memory_allocated counts them; what its allocator keeps beside them is left to the margin.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from megadec.plan.activations import activation_bytes, head_bytes, sums_chunks
from megadec.plan.setup import FP32, Setup

PARTS = ("parameters", "gradients", "optimizer", "activations", "buffers", "saves", "kept", "framework")

FP64 = 8
# CPU: the resident peak of a process that trains 13 thousand parameters, which bench/plan_check.py measures anew.
# CUDA: a round number for a context with NCCL's buffers, which nobody has measured here.
FRAMEWORK_BYTES = {"cpu": 560_000_000, "cuda": 1_000_000_000}
# engine/zero/cpu.py has glibc keep what is freed: resident beside what is in use, as a share of it. Measured by
# bench/plan_check.py at one rank, 0.08 to 0.22 for three sizes in bf16 at ZeRO 1 and 3. Where ranks send messages
# it keeps their buffers too, which no other block fits into (`_kept_bytes`).
KEPT_SHARE = 0.14
# Numbers that one message of an all-reduce without buckets holds (engine.buffered_allreduce_fallback).
FALLBACK_BUCKET = 500_000_000


@dataclass(frozen=True)
class Memory:
    """moments: moment of a step -> part -> bytes on the device. host, disk: bytes a rank keeps elsewhere."""

    moments: dict[str, dict[str, int]]
    host: dict[str, int] = field(default_factory=dict)
    disk: dict[str, int] = field(default_factory=dict)

    @property
    def peak_moment(self) -> str:
        """When the step needs most."""
        return max(self.moments, key=lambda name: sum(self.moments[name].values()))

    @property
    def parts(self) -> dict[str, int]:
        """Bytes by part at the peak."""
        return self.moments[self.peak_moment]

    @property
    def peak_bytes(self) -> int:
        """Bytes on the device at the peak, what the framework takes included."""
        return sum(self.parts.values())

    @property
    def host_bytes(self) -> int:
        """Bytes that a rank keeps in the host's memory."""
        return sum(self.host.values())


def memory_of(setup: Setup) -> Memory:
    """The memory of one rank in a step that is not the first, when the optimizer's state exists.

    loss: the head is computed. head: its gradient gets the weights' dtype. backward: the pass back begins in the last
    block that takes most. gradients: it has come to the embedding. reduce: the last gradients are sent. update: AdamW
    runs.
    """
    held, host, disk = _held(setup)
    kept, deepest = activation_bytes(setup)
    buckets, gathered, sending = _buckets(setup), _gathered(setup), _sending(setup)
    lone = setup.embedding * setup.item
    grown = _grown_gradients(setup)
    final = 2 * setup.tokens * setup.shape.hidden_size * setup.item  # the last block's output, and its gradient
    moments = {
        "loss": {"activations": kept + final, "buffers": gathered + buckets["always"] + head_bytes(setup)},
        "head": {
            "activations": kept + final,
            "gradients": lone + (setup.embedding * FP32 if sums_chunks(setup) else 0),
            "buffers": gathered + buckets["always"],
        },
        "backward": {
            "activations": deepest + final,
            "gradients": lone,
            "buffers": gathered + buckets["always"] + buckets["backward"],
        },
        "gradients": {
            "gradients": grown["gradients"],
            "buffers": (lone if setup.zero.stage == 3 else gathered) + buckets["always"] + buckets["last"],
        },
        "reduce": {"gradients": grown["reduce"], "buffers": buckets["always"] + buckets["filled"] + sending},
        "update": {"gradients": grown["update"], "buffers": buckets["always"] + _norm_bytes(setup)},
    }
    whole = {}
    for name, parts in moments.items():
        parts = {**parts, "framework": FRAMEWORK_BYTES[setup.device]}
        used = {part: held.get(part, 0) + parts.get(part, 0) for part in PARTS}
        in_use = sum(used.values()) - used["framework"] - used["saves"]  # that is one block, which is never freed
        whole[name] = {**used, "kept": _kept_bytes(setup, in_use, 0 if name == "reduce" else sending)}
    return Memory(whole, host, disk)


def _kept_bytes(setup: Setup, in_use: int, sent: int) -> int:
    """Freed blocks that stay resident on a CPU. sent: bytes of messages that were freed before this moment."""
    if setup.device != "cpu":
        return 0
    return round(KEPT_SHARE * in_use) + (sent if setup.ranks > 1 else 0)


def _held(setup: Setup) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """What a rank holds all the time, by part: on the device, in the host's memory, on disk."""
    p, n, stage = setup.parameters, setup.ranks, setup.zero.stage
    share = -(-p // n)
    weights = share * setup.item if stage == 3 else p * setup.item
    # The fp32 copy of the weights that AdamW updates, and its two moments; stage 0 (fp32 only) updates the weights.
    state = 3 * FP32 * share if stage else 2 * FP32 * p
    gradients = 0
    if stage == 3:
        gradients = FP32 * share  # grad_partitions_flat_buffer
    elif stage == 1 and setup.precision == "bf16":
        gradients = FP32 * p  # BF16_Optimizer.fp32_groups_gradients_flat
    places: dict[str, dict[str, int]] = {"device": {}, "host": {}, "disk": {}}
    parameters_at = setup.zero.parameters_at if stage == 3 else "device"
    places[parameters_at]["parameters"] = weights
    places[setup.zero.optimizer_at]["optimizer"] = state
    if setup.zero.optimizer_at == "device":
        places["device"]["gradients"] = gradients
    else:  # beside the flat buffer of gradients, the host holds those that AdamW reads
        places["host"]["gradients"] = gradients + FP32 * share
    if setup.snapshot:
        places["host"]["saves"] = setup.snapshot
    if setup.zero.swap_buffers:
        places["host"]["buffers"] = setup.zero.swap_buffers
    if setup.device == "cpu":  # its host is its device
        for part, size in places.pop("host").items():
            places["device"][part] = places["device"].get(part, 0) + size
    return places["device"], places.get("host", {}), places["disk"]


def _buckets(setup: Setup) -> dict[str, int]:
    """Bytes of the buckets of gradients: held always; at the beginning and the end of the backward pass; filled.

    On a CPU only the pages that were written to count. Stage 1 in fp32 fills its bucket behind the backward pass.
    """
    stage, numbers = setup.zero.stage, setup.zero.reduce_bucket
    written = min(numbers, setup.parameters)
    resident = FP32 * (written if setup.device == "cpu" else numbers)
    made = 0 if setup.device == "cpu" else resident
    if stage == 3:
        return {"always": resident, "backward": 0, "last": 0, "filled": 0}
    if stage == 2:
        return {"always": 0, "backward": made, "last": resident, "filled": resident}
    if stage == 1 and setup.precision == "fp32":
        return {"always": 0, "backward": made, "last": made, "filled": resident}
    return {"always": 0, "backward": 0, "last": 0, "filled": 0}


def _gathered(setup: Setup) -> int:
    """Weights that ZeRO-3 has whole on this rank: all of a model below stage3_max_live_parameters, from forward to
    backward, for each is used again within stage3_max_reuse_distance."""
    if setup.zero.stage != 3 or (setup.ranks == 1 and setup.zero.parameters_at == "device"):
        return 0
    return min(setup.parameters, setup.zero.max_live + setup.zero.prefetch_bucket) * setup.item


def _sending(setup: Setup) -> int:
    """Copies that a message of gradients is made in; stage 3 alone makes none where a rank has nobody to send to."""
    bucket = FP32 * min(setup.zero.reduce_bucket, setup.parameters)
    if setup.zero.stage == 3 and setup.ranks == 1:
        return 0
    if setup.zero.stage == 3:  # the ranks' parts one behind the other, and gloo's own copy
        return bucket * (2 if setup.device == "cpu" else 1) + setup.embedding * setup.item
    if setup.zero.stage == 0 or (setup.zero.stage == 1 and setup.precision == "bf16"):
        return FP32 * min(FALLBACK_BUCKET, setup.parameters)
    return bucket


def _grown_gradients(setup: Setup) -> dict[str, int]:
    """Gradients beside those that are held always: at the end of the backward pass, when they are sent, in the update.

    The head's gradient waits for the embedding's, to which it is added: one of them comes on top.
    """
    p, stage, lone = setup.parameters, setup.zero.stage, setup.embedding * setup.item
    if stage == 3:
        return {"gradients": 2 * lone, "reduce": 0, "update": 0}
    if stage == 0:
        return {"gradients": FP32 * p + lone, "reduce": FP32 * p, "update": FP32 * p}
    if stage == 1 and setup.precision == "bf16":  # in bf16 until they are added to the fp32 ones
        return {"gradients": 2 * p + lone, "reduce": 2 * p, "update": 2 * p}
    # grads_in_partition: of this rank's part, with the whole of a matrix of which it has a piece.
    matrices = setup.embedding * (1 if setup.shape.tied_embeddings else 2)
    part = FP32 * (p if setup.ranks == 1 else min(p, setup.embedding + (p - matrices) // setup.ranks))
    begun = FP32 * p + lone if stage == 1 else part + 2 * lone
    return {"gradients": begun, "reduce": part, "update": part}


def _norm_bytes(setup: Setup) -> int:
    """Of the update: the norm of the largest gradient is taken in float64; stages 1 and 2 flatten a group's gradients.

    The larger of AdamW's two groups is either the blocks' matrices, which decay, or what does not.
    """
    if setup.zero.stage == 1 and setup.precision == "bf16":
        return 0  # BF16_Optimizer takes the norm in float32, of the gradients where they lie
    if setup.zero.stage == 3:
        return FP64 * min(250_000_000, -(-setup.embedding // setup.ranks))
    largest = FP64 * -(-setup.embedding // setup.ranks)
    group = setup.parameters - setup.embedding * (1 if setup.shape.tied_embeddings else 2)
    group = max(group, setup.parameters - group)
    flat = FP32 * -(-group // setup.ranks) if setup.precision == "fp32" or setup.zero.stage == 2 else 0
    return max(largest, flat)
