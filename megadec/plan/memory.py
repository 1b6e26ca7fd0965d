"""How much memory a rank needs in a training step: bytes by part at six moments, the largest of which is the peak.

Every term was read in the code that allocates it: the activations in decoder/ (a test compares them with what autograd
keeps), the buffers in DeepSpeed 0.19's optimizers. Measured are only FRAMEWORK_BYTES and KEPT_SHARE. On a GPU these are
bytes in use, as torch.cuda.max_memory_allocated counts them; a compiled block is counted like one that is not.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from megadec.decoder.chunked_loss import CHUNK_BYTES, CHUNK_TOKENS
from megadec.decoder.execution import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.plan.setup import FP32, Machines, Setup

PARTS = ("parameters", "gradients", "optimizer", "activations", "buffers", "saves", "kept", "framework")

FP64 = 8
# CPU: the resident peak of a process that trains 13 thousand parameters, which bench/plan_check.py measures anew.
# CUDA: a round number for a context with NCCL's buffers, which nobody has measured here.
FRAMEWORK_BYTES = {"cpu": 560_000_000, "cuda": 1_000_000_000}
# engine/zero/cpu.py has glibc keep what is freed: resident beside what is in use, as a share of it. Measured by
# bench/plan_check.py at one rank, 0.08 to 0.22 for three sizes in bf16 at ZeRO 1 and 3. Where ranks send messages
# it keeps their buffers too, which no other block fits into.
KEPT_SHARE = 0.14
# Numbers in one message of an all-reduce without buckets (engine.buffered_allreduce_fallback), and of one norm.
FALLBACK_BUCKET, NORM_BUCKET = 500_000_000, 250_000_000


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

    def fits(self, machines: Machines) -> bool:
        """Whether it fits with the margin, on the device and on the host."""
        return machines.has_room(self.peak_bytes) and machines.has_host_room(self.host_bytes)


def memory_of(setup: Setup) -> Memory:
    """The memory of one rank in a step that is not the first, when the optimizer's state exists.

    loss: the head is computed. head: its gradient gets the weights' dtype. backward: the pass back begins in the last
    block that takes most. gradients: it has come to the embedding. reduce: the last gradients are sent. update: AdamW
    runs.
    """
    zero = _zero_bytes(setup)
    held, host, disk = _held(setup, zero)
    kept, deepest = activation_bytes(setup)
    lone = setup.embedding * setup.item
    final = 2 * setup.tokens * setup.shape.hidden_size * setup.item  # the last block's output, and its gradient
    logits, sums = _head_bytes(setup)
    weights = zero.gathered + zero.bucket
    # Of each moment: activations, gradients beside those that are held always, buffers.
    moments = {
        "loss": (kept + final, 0, weights + logits),
        "head": (kept + final, lone + sums, weights),
        "backward": (deepest + final, lone, weights + zero.bucket_at_begin),
        "gradients": (0, zero.gradients_at_end, zero.bucket_at_end + (lone if setup.zero.stage == 3 else 0)),
        "reduce": (0, zero.gradients_sent, zero.bucket_sent + zero.sending),
        "update": (0, zero.gradients_sent, zero.bucket + zero.norm),
    }
    whole = {}
    for name, sizes in moments.items():
        parts = dict.fromkeys(PARTS, 0) | held
        for part, size in zip(("activations", "gradients", "buffers"), sizes, strict=True):
            parts[part] += size
        if setup.device == "cpu":
            in_use = sum(parts.values()) - parts["saves"]  # that is one block, which is never freed
            sent = zero.sending if setup.ranks > 1 and name != "reduce" else 0
            parts["kept"] = round(KEPT_SHARE * in_use) + sent
        whole[name] = parts | {"framework": FRAMEWORK_BYTES[setup.device]}
    return Memory(whole, host, disk)


def _held(setup: Setup, zero: "_ZeroBytes") -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """What a rank holds all the time, by part: on the device, in the host's memory, on disk."""
    p, stage = setup.parameters, setup.zero.stage
    places: dict[str, dict[str, int]] = {"device": {}, "host": {}, "disk": {}}
    if stage == 3:
        places[setup.zero.parameters_at]["parameters"] = setup.share(p) * setup.item
    else:
        places["device"]["parameters"] = p * setup.item
    # The fp32 copy of the weights that AdamW updates, and its two moments; stage 0 (fp32 only) updates the weights.
    places[setup.zero.optimizer_at]["optimizer"] = 3 * FP32 * setup.share(p) if stage else 2 * FP32 * p
    if setup.zero.optimizer_at == "device":
        places["device"]["gradients"] = zero.gradients_held
    else:  # beside the flat buffer of gradients, the host holds those that AdamW reads
        places["host"]["gradients"] = zero.gradients_held + FP32 * setup.share(p)
    if setup.saves_behind:  # a copy of fp32 weights and both moments, as engine/checkpoint decides
        size, most = 3 * FP32 * setup.share(p), setup.snapshot_bytes
        if size <= most if most is not None else setup.zero.optimizer_at != "disk":
            places["host"]["saves"] = size
    if setup.zero.swap_buffers:
        places["host"]["buffers"] = setup.zero.swap_buffers
    if setup.device == "cpu":  # its host is its device
        for part, size in places["host"].items():
            places["device"][part] = places["device"].get(part, 0) + size
        places["host"] = {}
    return places["device"], places["host"], places["disk"]


class _ZeroBytes(NamedTuple):
    """What a stage of ZeRO takes beside weights and optimizer state, in bytes.

    gradients: held always; beside those, at the end of the backward pass, and when they are sent and in the update.
    bucket: of gradients, held always; beside that, when the backward pass begins; in all at its end, and when the last
    gradients are sent. sending: copies that a message is made in. gathered: weights that ZeRO-3 has whole, from forward
    to backward. norm: of the gradients, in the update.
    """

    gradients_held: int
    gradients_at_end: int
    gradients_sent: int
    sending: int
    norm: int
    bucket: int = 0
    bucket_at_begin: int = 0
    bucket_at_end: int = 0
    bucket_sent: int = 0
    gathered: int = 0


def _zero_bytes(setup: Setup) -> _ZeroBytes:
    """The head's gradient waits for the embedding's, to which it is added: one of them (`lone`) comes on top."""
    p, lone, stage = setup.parameters, setup.embedding * setup.item, setup.zero.stage
    message = FP32 * min(setup.zero.reduce_bucket, p)
    # On a CPU only the pages of a bucket that were written to count.
    bucket = message if setup.device == "cpu" else FP32 * setup.zero.reduce_bucket
    unwritten = 0 if setup.device == "cpu" else bucket
    norm = FP64 * setup.share(setup.embedding)  # of the largest gradient, in float64
    if stage == 3:
        alone = setup.ranks == 1
        # The ranks' parts one behind the other, and gloo's own copy; none where a rank has nobody to send to.
        sending = 0 if alone else message * (2 if setup.device == "cpu" else 1) + lone
        # All of a model below stage3_max_live_parameters, for each is used again within stage3_max_reuse_distance.
        live = min(p, setup.zero.max_live + setup.zero.prefetch_bucket) * setup.item
        gathered = 0 if alone and setup.zero.parameters_at == "device" else live
        norm = min(FP64 * NORM_BUCKET, norm)
        # Held: grad_partitions_flat_buffer.
        held = FP32 * setup.share(p)
        full = {"bucket": bucket, "bucket_at_end": bucket, "bucket_sent": bucket}
        return _ZeroBytes(held, 2 * lone, 0, sending, norm, gathered=gathered, **full)
    fallback = FP32 * min(FALLBACK_BUCKET, p)
    if stage == 1 and setup.precision == "bf16":
        # Held: BF16_Optimizer.fp32_groups_gradients_flat, to which those in bf16 are added. It takes the norm in
        # float32, of the gradients where they lie.
        return _ZeroBytes(FP32 * p, 2 * p + lone, 2 * p, fallback, norm=0)
    # The larger of AdamW's two groups, the blocks' matrices that decay and the rest; its gradients are flattened.
    matrices = setup.embedding * (1 if setup.shape.tied_embeddings else 2)
    group = max(p - matrices, matrices)
    if setup.precision == "fp32" or stage == 2:
        norm = max(norm, FP32 * setup.share(group))
    if stage == 0:
        return _ZeroBytes(0, FP32 * p + lone, FP32 * p, fallback, norm)
    # grads_in_partition: of this rank's part, with the whole of a matrix of which it has a piece.
    part = FP32 * (p if setup.ranks == 1 else min(p, setup.embedding + (p - matrices) // setup.ranks))
    filled = {"bucket_at_begin": unwritten, "bucket_sent": bucket}
    if stage == 1:  # in fp32; fills its bucket behind the backward pass
        return _ZeroBytes(0, FP32 * p + lone, part, message, norm, bucket_at_end=unwritten, **filled)
    return _ZeroBytes(0, part + 2 * lone, part, message, norm, bucket_at_end=bucket, **filled)


def activation_bytes(setup: Setup) -> tuple[int, int]:
    """(kept by all blocks at the end of the forward pass, the most that the backward pass has at a time)."""
    shape, recompute, tokens = setup.shape, setup.recompute, setup.tokens
    whole = tokens * _kept_bytes(setup)
    if setup.dropout:
        whole += tokens * 2 * shape.hidden_size * (setup.item + 1)  # what was scaled, and a byte that says what stayed
    kept, again = (tokens * n * setup.item for n in _policy_numbers(shape, recompute))
    on_device = 0 if recompute.offload and setup.device == "cuda" else kept
    # What lives only while a block's gradient is computed: those of gate, up or of q, k, v, and of the stream.
    if tile := setup.execution.mlp_tile_tokens:
        working = min(tile, tokens) * 5 * shape.intermediate_size
    else:
        working = tokens * max(2 * shape.intermediate_size, 2 * (shape.query_size + shape.key_value_size))
    working = (working + tokens * shape.hidden_size) * setup.item
    # Cosines and sines are float32 and shared by all layers; a batch is 32 bytes a token.
    deepest = held = tokens * (shape.head_size * FP32 + 32)
    for layer in range(shape.layers):
        if recompute.applies_to(layer):
            held += on_device
            deepest = max(deepest, held + working + whole - (again if on_device else 0))
        else:
            held += whole
            deepest = max(deepest, held + working)
    return held, deepest


def _kept_bytes(setup: Setup) -> int:
    """Bytes that a block keeps a token for its gradient, recompute=none.

    Of the residual stream: the block's input, its norm, the sum behind attention, its norm. Of attention: q and k
    before their norms (where they have some) and rotated, v, and what was mixed. Of the feed-forward layer: gate, up,
    and their product. In float32: a number for each norm, and attention's sums of exponentials.
    """
    shape, shares = setup.shape, setup.sequence_parallel_size
    q, kv = shape.query_size, shape.key_value_size
    numbers = 4 * shape.hidden_size + 2 * q + 2 * kv
    wide = 2 + shape.heads
    if shape.qk_norm:
        numbers += q + kv
        wide += shape.heads + shape.kv_heads
    if shares > 1:  # rotated heads go to other ranks, and what they mixed comes back as a tensor of its own
        copies = math.lcm(shape.kv_heads, shares) // shape.kv_heads
        numbers += q + 2 * kv * (copies - 1)
    if not setup.execution.mlp_tile_tokens:
        numbers += 3 * shape.intermediate_size
    return numbers * setup.item + wide * FP32


def _policy_numbers(shape: DecoderShape, recompute: Recompute) -> tuple[int, int]:
    """(kept a token of a block that is computed again, those of them that the whole block would keep too)."""
    if recompute.mode != "selective":
        return shape.hidden_size, shape.hidden_size
    q, kv = shape.query_size, shape.key_value_size
    sizes = {"qkv": q + 2 * kv, "attention": q, "output": 0, "gate_up": 2 * shape.intermediate_size}
    both = shape.hidden_size + sum(sizes[name] for name in recompute.keep)
    return both + (shape.hidden_size if "output" in recompute.keep else 0), both


def _head_bytes(setup: Setup) -> tuple[int, int]:
    """(the logits of a chunk and the head's gradient with what is added to it, a float32 sum that it is made of).

    The head's gradient is a sum over chunks of tokens, as `heads.chunk_tokens` has them, if there are several.
    """
    row = setup.item * setup.shape.vocabulary_size
    chunk = max(CHUNK_TOKENS[setup.device], CHUNK_BYTES[setup.device] // row)
    logits = min(chunk, setup.tokens) * row
    gradient = setup.embedding * setup.item
    if setup.item == FP32 or setup.tokens <= chunk:
        return logits + gradient, 0
    total = setup.embedding * FP32
    widened = total if setup.device == "cuda" else 0  # a CPU widens in small pieces
    return logits + gradient + total + widened, total
