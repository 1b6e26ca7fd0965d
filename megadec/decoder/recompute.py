"""Activation checkpointing: which activations the backward pass finds in memory, and which it computes again.

The result is the same to the last bit whatever the policy. For a block of hidden size H and intermediate size I, in
numbers a token:

| mode      | kept a block                                             | computed again                            |
|-----------|----------------------------------------------------------|-------------------------------------------|
| none      | everything (about 12 H + 4 I)                            | nothing                                   |
| selective | input, and what `keep` names:                            | the rest                                  |
|           | qkv: products of q, k, v (H to 3 H)                      |                                           |
|           | attention: what attention mixes (H)                      |                                           |
|           | output: the product behind attention (H)                 |                                           |
|           | gate_up: products of gate and up (2 I)                   |                                           |
| every_nth | one block of `every` as in full, the others as in none   | one block of `every`                      |
| full      | the input (H)                                            | the block but its last product            |

Measured for H = 768, I = 2048, float32, 1,024 tokens: 22.0 H, 4.7 H, and 1.0 H with full.

By default selective keeps qkv, attention and output, which are dear to compute for their size. torch's own selective
checkpointing is of no use here: it wants both passes to run the same operations, and ZeRO-3 gathers a weight in the one
or in the other, or ahead of both.

With `offload` what a policy keeps waits for the backward pass in the host's memory (offload.py).
"""

import functools
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.checkpoint import checkpoint

from megadec.decoder.execution import KEEPABLE, Recompute
from megadec.decoder.offload import HostCopy, can_offload, offloaded_input

# Products by name, with where their arguments hold the weight: without and with a bias.
_PRODUCTS = {"aten::mm": 1, "aten::addmm": 2}
_ATTENTION = frozenset({
    "aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
    "megadec::attend_each", "torch_attn::_varlen_attn",
})  # fmt: skip


def run_block(recompute: Recompute, layer: int, block: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """block(x, *args, **kwargs) under the policy; just that without gradients, as there is nothing to keep."""
    if not torch.is_grad_enabled() or not recompute.applies_to(layer):
        plain: Tensor = block(x, *args, **kwargs)
        return plain
    offload = recompute.offload and can_offload(x.device)
    options: dict[str, Any] = {}
    if recompute.mode == "selective":
        options["context_fn"] = functools.partial(_passes, _chosen(recompute.keep, block), offload)
    # Only dropout draws random numbers; keeping a generator's state waits for a GPU, so it is not done in vain.
    draws = bool(block.training and getattr(block, "dropout", 0.0))
    waiting: AbstractContextManager[object] = offloaded_input(x) if offload else nullcontext()
    with waiting:
        out: Tensor = checkpoint(block, x, *args, use_reentrant=False, preserve_rng_state=draws, **options, **kwargs)
    return out


def in_tiles(function: Callable[[Tensor], Tensor], x: Tensor, tile_tokens: int) -> Tensor:
    """function(x) for a function of each token by itself, x [..., H], `tile_tokens` tokens at a time.

    Only x is kept for the backward pass, which computes one tile again at a time: neither pass holds what is inside the
    function for more tokens than a tile's. From "Arctic Long Sequence Training" (arXiv 2506.13996).
    """
    x_NH = x.flatten(0, -2)
    if x_NH.shape[0] <= tile_tokens:
        return function(x)
    tiles = x_NH.split(tile_tokens)
    if torch.is_grad_enabled():
        done = [checkpoint(function, tile, use_reentrant=False, preserve_rng_state=False) for tile in tiles]
    else:
        done = [function(tile) for tile in tiles]
    out: Tensor = torch.cat(done).unflatten(0, x.shape[:-1])
    return out


Chosen = Callable[[Any, tuple[Any, ...]], bool]


def _chosen(keep: tuple[str, ...], block: nn.Module) -> Chosen:
    """Whether an operation's result is kept: attention's, and that of a product with the weight of a named module.

    A product is known by where its weight lies: under ZeRO-3 that is known only while it is computed.
    """
    owners: list[Any] = [block.get_submodule(name) for kept in keep for name in KEEPABLE[kept]]

    def choose(operation: Any, arguments: tuple[Any, ...]) -> bool:
        name = operation.name().partition(".")[0]
        if name in _ATTENTION:
            return "attention" in keep
        if name not in _PRODUCTS:
            return False
        return arguments[_PRODUCTS[name]].data_ptr() in (owner.weight.data_ptr() for owner in owners)

    return choose


def _passes(chosen: Chosen, offload: bool) -> tuple[TorchDispatchMode, TorchDispatchMode]:
    """The contexts of a block's first pass, and of its second one in the backward pass."""
    kept: deque[Any] = deque()
    return _Pass(chosen, kept, offload, again=False), _Pass(chosen, kept, offload, again=True)


class _Pass(TorchDispatchMode):
    """Keeps the results of chosen operations in their order; when run again, gives them back and runs all others."""

    def __init__(self, chosen: Chosen, kept: deque[Any], offload: bool, again: bool) -> None:
        super().__init__()
        self.chosen, self.kept, self.again = chosen, kept, again
        # A tensor object of its own: autograd writes what it knows of a result into the object.
        self.take = HostCopy if offload else Tensor.detach

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        chosen = self.chosen(func, args)
        if chosen and self.again:
            assert self.kept, "a block is computed again once, with the operations of its first pass"
            return tree_map_only((Tensor, HostCopy), _given, self.kept.popleft())
        out = func(*args, **(kwargs or {}))
        if chosen:
            self.kept.append(tree_map_only(Tensor, self.take, out))
        return out


def _given(kept: Tensor | HostCopy) -> Tensor:
    return kept.back() if isinstance(kept, HostCopy) else kept.detach()
