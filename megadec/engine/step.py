"""One training step: token batches in, updated weights and a report out.

The loss is the mean over all valid tokens of the step, whatever ranks and micro-steps they fall on, so 1 x 8 and 8 x 1
micro-batches, on one rank or two, are the same step. That needs the global number of tokens before the first backward
pass: one all-reduce of three numbers, which also carries each rank's wish to stop.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from megadec.data.batch import Batch
from megadec.engine.health.guard import GuardOptions, GuardState, detect
from megadec.engine.health.watchdog import SetPhase
from megadec.engine.metrics.device import peak_memory_bytes
from megadec.engine.metrics.reports import Anomaly, StepReport
from megadec.engine.ranks import Ranks
from megadec.engine.zero.engine import ZeroEngine

DEFAULT_GUARD, NO_HISTORY = GuardOptions(), GuardState()


def train_step(
    engine: ZeroEngine,
    batches: Sequence[Batch],
    *,
    step: int,
    learning_rate: float,
    wants_stop: bool = False,
    guard: GuardOptions = DEFAULT_GUARD,
    history: GuardState = NO_HISTORY,
    set_phase: SetPhase = lambda phase, step: None,
) -> StepReport | None:
    """Train on this rank's micro-batches of one step; `step` is the number the step has once it is done.

    guard, history: what loss and gradients are measured by before the update, which is left out where the report's
    anomaly says so. set_phase: told what this rank is doing. Returns None, with nothing changed, when any rank wants to
    stop. Raises TrainingError when a rank is lost.
    """
    set_phase("agree", step)
    tokens = sum(batch.valid_tokens for batch in batches)
    squared_tokens = sum(batch.squared_document_tokens for batch in batches)
    sums = engine.ranks.sum_over_ranks([tokens, squared_tokens, float(wants_stop)])
    valid_tokens, squared_tokens, stops = map(int, sums)
    if stops:
        return None
    if valid_tokens == 0:
        nothing = Anomaly(step, "no_tokens", "skip", (), "no token of the batch has a loss weight")
        return StepReport(step, math.nan, 0, squared_tokens, learning_rate, math.nan, anomaly=nothing)
    # DeepSpeed takes the mean over ranks, so each rank's share is multiplied by their number.
    scale = engine.ranks.world_size / valid_tokens
    losses = []
    engine.begin_step(len(batches))
    set_phase("forward/backward", step)
    for number, batch in enumerate(batches, start=1):
        loss = engine.loss_sum(batch)
        engine.backward(loss * scale)
        losses.append(loss.detach())
        if number < len(batches):
            engine.end_micro_step()
    set_phase("reduce", step)
    ranks, own = engine.ranks, engine.own_gradients()
    nats, memory_bytes = float(torch.stack(losses).sum()), float(peak_memory_bytes(ranks.device))
    rank_losses, rank_norms, broken, memory = _gather(ranks, (nats, own.norm, own.first_not_finite + 1.0, memory_bytes))
    mean_loss, norm = sum(rank_losses) / valid_tokens, engine.gradient_norm()
    names = tuple(engine.trained_names[int(number) - 1] if number else "" for number in broken)
    figures = StepReport(step, mean_loss, valid_tokens, squared_tokens, learning_rate, norm, tuple(map(int, memory)))
    figures = replace(figures, rank_losses=rank_losses, rank_norms=rank_norms, broken=names)
    set_phase("update", step)
    report = replace(figures, anomaly=detect(guard, history, figures))
    if report.updated:
        engine.update(learning_rate)
    else:
        engine.skip_update()
    return report


def _gather(ranks: Ranks, mine: Sequence[float]) -> list[tuple[float, ...]]:
    """Each of these numbers on every rank, by rank, in one message: a sum in which every rank has places of its own."""
    values = [0.0] * (len(mine) * ranks.world_size)
    values[ranks.rank * len(mine) : (ranks.rank + 1) * len(mine)] = mine
    sums = ranks.sum_over_ranks(values)
    return [tuple(sums[place :: len(mine)]) for place in range(len(mine))]
