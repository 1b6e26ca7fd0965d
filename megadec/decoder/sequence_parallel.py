"""Ulysses sequence parallelism (arXiv 2309.14509): sequences cut over a group of ranks.

Around attention each rank gives its part of all heads away and gets whole sequences of a share of the heads; all else
is done token by token and needs no message. That is two all-to-all messages a layer and pass: q, k and v
packed into one, and the result. The ranks of a group cannot be more than the heads.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Shapes: B batch, S tokens of the whole sequence, P tokens of this rank's part, H query heads, K key-value heads, R
# ranks of the group.

_groups: Any = torch.distributed.distributed_c10d
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class SequenceRanks:
    """The ranks that hold the parts of the same sequences, in the order of the parts; `group`: their process group."""

    count: int
    group: str

    def attend(self, attention: Attention, q_BPHD: Tensor, k_BPKD: Tensor, v_BPKD: Tensor) -> Tensor:
        """attention(q_BSHD, k_BSKD, v_BSKD) -> [B, S, H * D] done by all ranks, each for its heads; [B, P, H * D].

        H is a multiple of the ranks. Key-value heads that are not are given to several ranks.
        """
        heads, kv_heads = q_BPHD.shape[2] // self.count, k_BPKD.shape[2]
        # The smallest number of copies with which each rank gets the same number; it divides the query heads too.
        copies = math.lcm(kv_heads, self.count) // kv_heads
        if copies > 1:
            k_BPKD, v_BPKD = (x.repeat_interleave(copies, dim=2) for x in (k_BPKD, v_BPKD))
        parts = [x.unflatten(2, (self.count, -1)) for x in (q_BPHD, k_BPKD, v_BPKD)]
        mine_RBPnD = _exchange(torch.cat(parts, dim=3).permute(2, 0, 1, 3, 4), self.group)
        whole_BSnD = mine_RBPnD.transpose(0, 1).flatten(1, 2)
        kv = (whole_BSnD.shape[2] - heads) // 2
        mixed_BSX = attention(*whole_BSnD.split([heads, kv, kv], dim=2))
        back_BRPX = mixed_BSX.unflatten(1, (self.count, -1))
        theirs_RBPX: Tensor = _exchange(back_BRPX.transpose(0, 1), self.group)
        return theirs_RBPX.permute(1, 2, 0, 3).flatten(2)


# An operation, so that torch.compile takes it as it is. It is its own transpose: gradients take the way back.
@torch.library.custom_op("megadec::all_to_all", mutates_args=(), schema="(Tensor x_R, str group) -> Tensor")
def _exchange(x_R: Tensor, group: str) -> Tensor:
    """Place r of the first dimension to rank r of the group; what came from rank r stands at place r."""
    out_R = torch.empty_like(x_R, memory_format=torch.contiguous_format)
    torch.distributed.all_to_all_single(out_R, x_R.contiguous(), group=_groups._resolve_process_group(group))
    return out_R


@_exchange.register_fake
def _(x_R: Tensor, group: str) -> Tensor:
    return torch.empty_like(x_R, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Tensor, str], output: Tensor) -> None:
    ctx.group = inputs[1]


def _gradient(ctx: Any, upstream_R: Tensor) -> tuple[Tensor, None]:
    return _exchange(upstream_R, ctx.group), None


_exchange.register_autograd(_gradient, setup_context=_save)
