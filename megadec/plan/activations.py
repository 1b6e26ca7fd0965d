"""What the forward pass leaves for the backward pass, in bytes: the blocks' activations and the head's logits.

In: a setup. Out: bytes on a rank. Each number is a tensor that the modules of decoder/ give to autograd; a test
compares the sum with what autograd was given. Torch.compile decides for itself what it keeps, so a compiled block is
counted like one that is not.
"""

from __future__ import annotations

import math

from megadec.decoder.execution import PLAIN, Execution
from megadec.decoder.heads import CHUNK_BYTES, CHUNK_TOKENS
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.plan.setup import FP32, Setup


def kept_numbers(shape: DecoderShape, execution: Execution = PLAIN, sequence_parallel_size: int = 1) -> tuple[int, int]:
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
    if (
        sequence_parallel_size > 1
    ):  # rotated heads go to other ranks, and what they mixed comes back as a tensor of its own
        copies = math.lcm(shape.kv_heads, sequence_parallel_size) // shape.kv_heads
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
    numbers, wide = kept_numbers(shape, setup.execution, setup.sequence_parallel_size)
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


def head_bytes(setup: Setup) -> int:
    """The logits of a chunk, and the sum of the head's gradient with the product that is added to it."""
    logits = min(_chunk(setup), setup.tokens) * setup.shape.vocabulary_size * setup.item
    if not sums_chunks(setup):
        return logits + setup.embedding * setup.item
    widened = setup.embedding * FP32 if setup.device == "cuda" else 0  # a CPU widens in small pieces
    return logits + setup.embedding * (FP32 + setup.item) + widened


def _chunk(setup: Setup) -> int:
    """Tokens whose logits exist at a time, as `heads.chunk_tokens` has them."""
    numbers = setup.item * setup.shape.vocabulary_size
    return max(CHUNK_TOKENS[setup.device], CHUNK_BYTES[setup.device] // numbers)


def sums_chunks(setup: Setup) -> bool:
    """Whether the head's gradient is a float32 sum of chunks of narrower numbers."""
    return setup.item < FP32 and setup.tokens > _chunk(setup)
