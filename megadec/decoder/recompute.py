"""Activation checkpointing: which activations the backward pass finds in memory, and which it computes again.

In: a policy and a block of the decoder. Out: the block's result, the same to the last bit whatever the policy.
Trade-off, for a block of hidden size H and intermediate size I, in numbers kept a token:

| mode      | kept a block                                             | computed again                            |
|-----------|----------------------------------------------------------|-------------------------------------------|
| none      | everything (about 12 H + 4 I)                            | nothing                                   |
| selective | input, q, k, v and o products, attention (about 5 H)     | norms, rotations, gate, up, silu          |
| every_nth | one block of `every` as in full, the others as in none   | one block of `every`                      |
| full      | the input (H)                                            | the block but its last product            |

Measured for H = 768, I = 2048, float32, 1,024 tokens: 22.0 H, 4.7 H, and 1.0 H with full.

Selective keeps what is dear to compute for its size: attention grows with the length of the document, while gate and up
are wide and cheap for each number that would be kept.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from megadec.common.errors import ConfigError
from megadec.decoder.shape import DecoderShape

MODES = ("none", "full", "every_nth", "selective")

_aten = torch.ops.aten
_ATTENTION = {
    operation.default
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
    )
    if (operation := getattr(_aten, name, None)) is not None
}


@dataclasses.dataclass(frozen=True)
class Recompute:
    """mode: see the table above. every: with every_nth, blocks 0, every, 2 * every ... are computed again."""

    mode: Literal["none", "full", "every_nth", "selective"] = "none"
    every: int = 2

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"recompute.mode={self.mode!r} is none of {', '.join(MODES)}")
        if self.every < 1:
            raise ConfigError(f"recompute.every={self.every} is less than 1")

    def applies_to(self, layer: int) -> bool:
        """Whether block `layer` is computed again, wholly or in part."""
        return self.mode in ("full", "selective") or (self.mode == "every_nth" and layer % self.every == 0)


def run_block(
    recompute: Recompute, shape: DecoderShape, layer: int, block: nn.Module, *args: Any, **kwargs: Any
) -> Tensor:
    """block(*args, **kwargs) under the policy; just that without gradients, as there is nothing to keep."""
    if not torch.is_grad_enabled() or not recompute.applies_to(layer):
        plain: Tensor = block(*args, **kwargs)
        return plain
    options: dict[str, Any] = {}
    if recompute.mode == "selective":
        policy = _policy(shape.intermediate_size)
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, policy)
    # The decoder draws no random numbers, so there is no generator's state to keep.
    out: Tensor = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=False, **options, **kwargs)
    return out


def _policy(intermediate_size: int) -> Callable[..., CheckpointPolicy]:
    def decide(_context: Any, operation: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
        if operation in _ATTENTION:
            return CheckpointPolicy.MUST_SAVE
        if operation is _aten.mm.default and intermediate_size not in args[1].shape:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return decide
