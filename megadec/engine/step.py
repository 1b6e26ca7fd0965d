"""One training step: token batches in, updated weights and a report out.

The loss is the mean over all valid tokens of the step, whatever ranks and micro-steps they fall on, so 1 x 8 and 8 x 1
micro-batches, on one rank or two, are the same step. Trade-off: that needs the global number of tokens before the first
backward pass, a message of two numbers, which also carries each rank's wish to stop.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from megadec.common.errors import TrainingError
from megadec.data.batch import Batch
from megadec.engine.metrics import peak_memory_bytes
from megadec.engine.zero import ZeroEngine


@dataclass(frozen=True)
class StepReport:
    """What happened in one step, over all ranks. `loss` in nats a token; `tokens` counts targets with a weight.

    `squared_document_tokens`: the squared lengths of the documents in the rows, added up: what attention costs.
    """

    step: int
    loss: float
    tokens: int
    squared_document_tokens: int
    learning_rate: float
    grad_norm: float
    seconds: float
    memory_bytes: tuple[int, ...]


def train_step(
    engine: ZeroEngine, batches: Sequence[Batch], *, step: int, learning_rate: float, wants_stop: bool
) -> StepReport | None:
    """Train on this rank's micro-batches of one step; `step` is the number the step has once it is done.

    Returns None, with nothing changed, when any rank wants to stop. Raises TrainingError, before the weights change,
    when the loss of any rank is not finite, and after DeepSpeed refused the update when the gradients are not.
    """
    began = time.perf_counter()
    valid_tokens, squared_tokens, stops = engine.ranks.sum_over_ranks(
        [
            sum(batch.valid_tokens for batch in batches),
            sum(batch.squared_document_tokens for batch in batches),
            float(wants_stop),
        ]
    )
    if stops:
        return None
    if valid_tokens == 0:
        raise TrainingError(f"step {step}: no token of the batch has a loss weight; look at the shards of this window")
    # DeepSpeed takes the mean over ranks, so each rank's share is multiplied by their number.
    scale = engine.ranks.world_size / valid_tokens
    losses = []
    for number, batch in enumerate(batches, start=1):
        loss = engine.loss_sum(batch)
        engine.backward(loss * scale)
        losses.append(loss.detach())
        if number < len(batches):
            engine.end_micro_step()
    loss_sum, memory = _gather(engine, float(torch.stack(losses).sum()), step)
    norm = engine.update(learning_rate)
    if not math.isfinite(norm):
        raise TrainingError(
            f"step {step}, rank {engine.ranks.rank}: the gradient norm is not finite though the loss is"
            f" {loss_sum / valid_tokens:.4f}; the newest checkpoint is from before this step"
        )
    seconds = time.perf_counter() - began
    return StepReport(
        step, loss_sum / valid_tokens, int(valid_tokens), int(squared_tokens), learning_rate, norm, seconds, memory
    )


def _gather(engine: ZeroEngine, loss_sum: float, step: int) -> tuple[float, tuple[int, ...]]:
    """The loss over all ranks and each rank's peak memory.

    Raises TrainingError naming the ranks whose loss is not finite.
    """
    ranks = engine.ranks.world_size
    values = [0.0] * (1 + 2 * ranks)
    finite = math.isfinite(loss_sum)
    values[0] = loss_sum if finite else 0.0
    values[1 + engine.ranks.rank] = 0.0 if finite else 1.0
    values[1 + ranks + engine.ranks.rank] = float(peak_memory_bytes(engine.ranks.device))
    sums = engine.ranks.sum_over_ranks(values)
    broken = [rank for rank in range(ranks) if sums[1 + rank]]
    if broken:
        names = ", ".join(str(rank) for rank in broken)
        raise TrainingError(f"step {step}: the loss is not finite on rank {names}; the weights were not changed")
    return sums[0], tuple(int(value) for value in sums[1 + ranks :])
