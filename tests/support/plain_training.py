"""The engine's training in plain torch: no DeepSpeed, no engine, one process, the whole step as one batch."""

from typing import Any

from torch import nn

from megadec.engine.optimizer import OptimizerOptions, build_optimizer
from megadec.engine.schedule import ScheduleOptions, learning_rate_factor


def train_plainly(
    model: nn.Module, stream: Any, steps: int, optimizer: OptimizerOptions, schedule: ScheduleOptions
) -> list[float]:
    """The loss of each step. stream: has `batch`, as that of a task."""
    adamw = build_optimizer(model.named_parameters(), optimizer)
    losses = []
    for step in range(steps):
        [batch] = stream.batch(step, 0, 1, None)
        loss = model(batch.ids_BS, **batch.model_arguments()) / batch.valid_tokens
        adamw.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimizer.max_grad_norm)
        for group in adamw.param_groups:
            group["lr"] = optimizer.learning_rate * learning_rate_factor(schedule, step, steps)
        adamw.step()
        losses.append(float(loss.detach()))
    return losses
