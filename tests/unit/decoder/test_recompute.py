"""Activation checkpointing: the same numbers from less memory."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from megadec.common.errors import ConfigError
from megadec.decoder.execution import Execution
from megadec.decoder.initialise import initialise
from megadec.decoder.model import Decoder
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape

TINY = DecoderShape(
    vocabulary_size=97,
    hidden_size=64,
    layers=3,
    heads=4,
    kv_heads=2,
    head_size=16,
    intermediate_size=192,
    context_tokens=64,
)
Mode = Literal["none", "full", "every_nth", "selective"]


def loss_and_gradients(recompute: Recompute, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    decoder = Decoder(TINY, Execution(recompute=recompute))
    initialise(decoder, 3)
    decoder.to(dtype)
    torch.manual_seed(0)
    ids, targets = torch.randint(0, 97, (2, 2, 24)).unbind(0)
    documents = torch.tensor([[0] * 9 + [1] * 15, [0] * 24])
    loss = decoder(ids, documents_BS=documents, targets_BS=targets)
    loss.backward()
    return loss.detach(), [parameter.grad for parameter in decoder.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("mode", "every"), [("full", 1), ("every_nth", 1), ("every_nth", 2), ("selective", 1)])
def test_every_policy_gives_the_loss_and_gradients_of_none_bit_for_bit(
    mode: Mode, every: int, dtype: torch.dtype
) -> None:
    loss, gradients = loss_and_gradients(Recompute(mode, every), dtype)
    expected_loss, expected_gradients = loss_and_gradients(Recompute(), dtype)
    assert torch.equal(loss, expected_loss)
    assert len(gradients) == len(expected_gradients) == len(list(Decoder(TINY).parameters()))
    assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))


def kept_numbers(recompute: Recompute) -> int:
    """How many different numbers stay in memory for the backward pass."""
    decoder = Decoder(TINY, Execution(recompute=recompute))
    weights = {parameter.data_ptr() for parameter in decoder.parameters()}
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        if x.untyped_storage().data_ptr() not in weights:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = decoder(torch.zeros(1, 64, dtype=torch.int64), targets_BS=torch.zeros(1, 64, dtype=torch.int64))
    assert loss.requires_grad
    return sum(kept.values())


def test_recomputing_more_keeps_less() -> None:
    none, every_second, full = (
        kept_numbers(recompute) for recompute in (Recompute(), Recompute("every_nth", 2), Recompute("full"))
    )
    assert full < every_second < none


def products(recompute: Recompute) -> Counter[str]:
    decoder = Decoder(TINY, Execution(recompute=recompute))
    ids = torch.zeros(1, 16, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        decoder(ids, targets_BS=ids).backward()
    counts = counter.get_flop_counts()["Global"]
    return Counter({str(operation).removeprefix("aten."): count for operation, count in counts.items()})


def test_selective_computes_only_gate_and_up_again() -> None:
    none, selective, full = products(Recompute()), products(Recompute("selective")), products(Recompute("full"))
    gate_and_up = 2 * 2 * 16 * 64 * 192 * TINY.layers
    assert selective - none == Counter({"mm": gate_and_up})
    assert full.total() > selective.total()


def test_a_policy_that_is_none_of_these_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"recompute\.mode='half' is none of none, full"):
        Recompute("half")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"recompute\.every=0"):
        Recompute("every_nth", 0)
