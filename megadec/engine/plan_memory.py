"""How much memory a rank needs in a training step, by part, and when in the step.

In: a shape, a policy, ZeRO's settings, a batch. Out: bytes by part at five moments of a step, the largest of which is
the peak. Every term stands where the code that allocates it was read: the activations in decoder/, the buffers in
DeepSpeed 0.19's optimizers. Two things are measured and not counted: what a process has before there is a model
(`FRAMEWORK_BYTES`), and nothing else. Trade-off: bytes in use are counted, as torch.cuda.max_memory_allocated counts
them; an allocator keeps freed blocks beside them, for which the plan leaves a margin.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.flops import parameter_count
from megadec.decoder.heads import CHUNK_BYTES, CHUNK_TOKENS
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.settings import Precision

Place = Literal["device", "host", "disk"]
PARTS = ("parameters", "gradients", "optimizer", "activations", "buffers", "framework")

FP32 = 4
FP64 = 8
# Measured: the resident peak of a process that trains a model of 13 thousand parameters (CPU: tools/bench/plan_check.py
# measures it anew). CUDA: a context with NCCL, from the literature, not measured here.
FRAMEWORK_BYTES = {"cpu": 550_000_000, "cuda": 1_000_000_000}
# What DeepSpeed 0.19 takes where the file does not say.
REDUCE_BUCKET, MAX_LIVE, PREFETCH_BUCKET = 500_000_000, 1_000_000_000, 50_000_000
# Numbers that one message of an all-reduce without buckets holds (engine.buffered_allreduce_fallback).
FALLBACK_BUCKET = 500_000_000


_count = functools.lru_cache(maxsize=64)(parameter_count)


@dataclass(frozen=True)
class Zero:
    """What a DeepSpeed file says that takes memory; buckets in numbers, as there."""

    stage: int = 3
    reduce_bucket: int = 50_000_000
    max_live: int = MAX_LIVE
    prefetch_bucket: int = PREFETCH_BUCKET
    optimizer_at: Place = "device"
    parameters_at: Place = "device"
    swap_buffers: int = 0
    """Bytes of host memory that wait between the device and a disk."""

    @classmethod
    def of(cls, values: dict[str, Any]) -> Zero:
        """From a merged DeepSpeed dictionary."""
        zero = values.get("zero_optimization", {})
        places: dict[str, Place] = {"cpu": "host", "nvme": "disk", "none": "device"}
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
    """Everything that a rank's memory depends on. micro_sequences: rows of a group of sequence_ranks in a micro-step.

    device: `cpu` has the buckets' untouched pages for nothing, and its host is its device.
    """

    shape: DecoderShape
    zero: Zero = Zero()
    precision: Precision = "bf16"
    ranks: int = 1
    sequence_ranks: int = 1
    micro_sequences: int = 8
    row_tokens: int = 1024
    execution: Execution = PLAIN
    dropout: float = 0.0
    device: Literal["cuda", "cpu"] = "cuda"

    @property
    def item(self) -> int:
        """Bytes of a weight and of an activation."""
        return 2 if self.precision == "bf16" else FP32

    @property
    def tokens(self) -> int:
        """Tokens of a micro-step whose activations a rank holds."""
        return self.micro_sequences * self.row_tokens // self.sequence_ranks

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
        "loss": {"activations": kept + final, "buffers": gathered + buckets["always"] + _head_bytes(setup)},
        "head": {
            "activations": kept + final,
            "gradients": lone + (setup.embedding * FP32 if _sums_chunks(setup) else 0),
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
        whole[name] = {part: held.get(part, 0) + parts.get(part, 0) for part in PARTS}
    return Memory(whole, host, disk)


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
    if setup.zero.swap_buffers:
        places["host"]["buffers"] = setup.zero.swap_buffers
    if setup.device == "cpu":  # its host is its device
        for part, size in places.pop("host").items():
            places["device"][part] = places["device"].get(part, 0) + size
    return places["device"], places.get("host", {}), places["disk"]


def kept_numbers(shape: DecoderShape, execution: Execution = PLAIN, sequence_ranks: int = 1) -> tuple[int, int]:
    """(numbers in the activations' dtype, float32 numbers) that a block keeps a token for its gradient, recompute=none.

    Of the residual stream: the block's input, its norm, the sum behind attention, its norm. Of attention: q and k
    before their norms (where they have some) and rotated, v, and what was mixed. Of the feed-forward layer: gate, up,
    and their product. In float32: a number for each norm, and attention's sums of exponentials.
    """
    q, kv, heads = shape.query_size, shape.key_value_size, shape.heads
    numbers = 4 * shape.hidden_size + 2 * q + 2 * kv
    wide = 2 + heads
    if shape.qk_norm:
        numbers += q + kv
        wide += heads + shape.kv_heads
    if sequence_ranks > 1:  # rotated heads go to other ranks, and what they mixed comes back as a tensor of its own
        copies = math.lcm(shape.kv_heads, sequence_ranks) // shape.kv_heads
        numbers += q + 2 * kv * (copies - 1)
    if not execution.mlp_tile_tokens:
        numbers += 3 * shape.intermediate_size
    return numbers, wide


def _policy_numbers(shape: DecoderShape, recompute: Recompute) -> tuple[int, int]:
    """(kept a token of a block that is computed again, those of them that the whole block would keep too)."""
    if recompute.mode != "selective":
        return shape.hidden_size, shape.hidden_size
    q, kv = shape.query_size, shape.key_value_size
    sizes = {"qkv": q + 2 * kv, "attention": q, "output": 0, "gate_up": 2 * shape.intermediate_size}
    both = shape.hidden_size + sum(sizes[name] for name in recompute.keep)
    return both + (shape.hidden_size if "output" in recompute.keep else 0), both


def activation_bytes(setup: Setup) -> tuple[int, int]:
    """(kept by all blocks at the end of the forward pass, the most that the backward pass has at a time)."""
    shape, recompute, tokens = setup.shape, setup.execution.recompute, setup.tokens
    numbers, wide = kept_numbers(shape, setup.execution, setup.sequence_ranks)
    whole = tokens * (numbers * setup.item + wide * FP32)
    if setup.dropout:
        whole += tokens * 2 * shape.hidden_size * (setup.item + 1)  # what was scaled, and a byte that says what stayed
    kept, again = (tokens * n * setup.item for n in _policy_numbers(shape, recompute))
    on_device = 0 if recompute.offload and setup.device == "cuda" else kept
    # What lives only while a block's gradient is computed: those of gate, up or of q, k, v, and of the stream.
    inside = max(2 * shape.intermediate_size, 2 * (shape.query_size + shape.key_value_size))
    working_tokens = tokens
    if tile := setup.execution.mlp_tile_tokens:
        working_tokens = min(tile, tokens)
        inside = 5 * shape.intermediate_size
    working = (working_tokens * inside + tokens * shape.hidden_size) * setup.item
    # Cosines and sines are float32 and shared by all layers; a batch is 32 bytes a token.
    before = tokens * (shape.head_size * FP32 + 32)
    deepest = held = before
    for layer in range(shape.layers):
        if recompute.applies_to(layer):
            held += on_device
            deepest = max(deepest, held + working + whole - (again if on_device else 0))
        else:
            held += whole
            deepest = max(deepest, held + working)
    return held, deepest


def _head_bytes(setup: Setup) -> int:
    """The logits of a chunk, and the sum of the head's gradient with the product that is added to it."""
    logits = min(_chunk(setup), setup.tokens) * setup.shape.vocabulary_size * setup.item
    if not _sums_chunks(setup):
        return logits + setup.embedding * setup.item
    widened = setup.embedding * FP32 if setup.device == "cuda" else 0  # a CPU widens in small pieces
    return logits + setup.embedding * (FP32 + setup.item) + widened


def _chunk(setup: Setup) -> int:
    """Tokens whose logits exist at a time, as `heads.chunk_tokens` has them."""
    numbers = setup.item * setup.shape.vocabulary_size
    return max(CHUNK_TOKENS[setup.device], CHUNK_BYTES[setup.device] // numbers)


def _sums_chunks(setup: Setup) -> bool:
    """Whether the head's gradient is a float32 sum of chunks of narrower numbers."""
    return setup.item < FP32 and setup.tokens > _chunk(setup)


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
