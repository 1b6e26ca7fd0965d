"""What a step asks of the engine, in which order, and when it asks nothing."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from megadec.engine.ranks import Ranks
from megadec.engine.step import train_step
from megadec.engine.zero.gradients import OwnGradients


class Engine:
    """One rank that notes what it is told. Each prediction costs 2 nats."""

    def __init__(self) -> None:
        self.ranks = Ranks(0, 1, torch.device("cpu"))
        self.calls: list[Any] = []

    def begin_step(self, micro_steps: int) -> None:
        self.micro_steps = micro_steps

    def loss_sum(self, batch: Any) -> Tensor:
        return torch.tensor(2.0 * batch.valid_tokens)

    def backward(self, loss: Tensor) -> None:
        self.calls.append(("backward", float(loss)))

    def own_gradients(self) -> OwnGradients:
        return OwnGradients(0.5, -1)

    def gradient_norm(self) -> float:
        return 0.5

    def end_micro_step(self) -> None:
        self.calls.append("end_micro_step")

    def update(self, learning_rate: float) -> None:
        self.calls.append(("update", learning_rate))


def take(engine: Engine, tokens: list[int], **options: Any) -> Any:
    batches = [SimpleNamespace(valid_tokens=count, squared_document_tokens=count**2) for count in tokens]
    return train_step(cast(Any, engine), cast(Any, batches), step=3, learning_rate=0.1, **options)


def test_micro_batches_weigh_by_their_tokens_and_the_last_one_ends_with_the_update() -> None:
    engine, phases = Engine(), list[str]()
    report = take(engine, [1, 3], set_phase=lambda phase, _: phases.append(phase))
    assert engine.calls == [("backward", 0.5), "end_micro_step", ("backward", 1.5), ("update", 0.1)]
    assert (report.step, report.loss, report.tokens, report.squared_document_tokens) == (3, 2.0, 4, 10)
    assert (report.grad_norm, report.learning_rate, report.updated) == (0.5, 0.1, True)
    assert phases == ["agree", "forward/backward", "reduce", "update"]


def test_a_wish_to_stop_and_a_step_without_a_token_to_learn_from_change_nothing() -> None:
    engine = Engine()
    assert take(engine, [1, 3], wants_stop=True) is None
    report = take(engine, [0, 0])
    assert (report.anomaly.kind, report.anomaly.action, report.updated) == ("no_tokens", "skip", False)
    assert engine.calls == []
