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
are wide and cheap for each number that would be kept. It is written here and not taken from torch, whose own selective
checkpointing wants both passes to run the same operations: ZeRO-3 gathers a weight in the one or in the other, or ahead
of both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

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
        options["context_fn"] = functools.partial(_passes, _chosen(shape.intermediate_size))
    # Only dropout draws random numbers; keeping a generator's state waits for a GPU, so it is not done in vain.
    draws = bool(block.training and getattr(block, "dropout", 0.0))
    out: Tensor = checkpoint(block, *args, use_reentrant=False, preserve_rng_state=draws, **options, **kwargs)
    return out


Chosen = Callable[[Any, tuple[Any, ...]], bool]


def _chosen(intermediate_size: int) -> Chosen:
    """Whether an operation's result is kept: attention's, and that of products but for gate's and up's."""

    def choose(operation: Any, arguments: tuple[Any, ...]) -> bool:
        return operation in _ATTENTION or (
            operation is _aten.mm.default and intermediate_size not in arguments[1].shape
        )

    return choose


def _passes(chosen: Chosen) -> tuple[TorchDispatchMode, TorchDispatchMode]:
    """The contexts of a block's first pass, and of its second one in the backward pass."""
    kept: deque[Any] = deque()
    return _Keep(chosen, kept), _Give(chosen, kept)


class _Keep(TorchDispatchMode):
    """Keeps the results of chosen operations in their order."""

    def __init__(self, chosen: Chosen, kept: deque[Any]) -> None:
        super().__init__()
        self.chosen, self.kept = chosen, kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.chosen(func, args):
            self.kept.append(_detached(out))
        return out


class _Give(TorchDispatchMode):
    """Gives chosen operations the results that were kept; all others run again."""

    def __init__(self, chosen: Chosen, kept: deque[Any]) -> None:
        super().__init__()
        self.chosen, self.kept = chosen, kept

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.chosen(func, args):
            assert self.kept, "a block is computed again once, with the operations of its first pass"
            return _detached(self.kept.popleft())
        return func(*args, **(kwargs or {}))


def _detached(value: Any) -> Any:
    """The same numbers in a tensor object of their own: autograd writes what it knows of a result into the object."""
    return tree_map_only(Tensor, Tensor.detach, value)
