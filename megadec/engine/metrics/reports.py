"""What the parts of a training tell each other and the metrics: a step, an evaluation, a saved checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Action = Literal["skip", "roll_back", "stop"]
Kind = Literal["no_tokens", "loss_not_finite", "gradients_not_finite", "loss_spike", "gradient_spike"]


@dataclass(frozen=True)
class Anomaly:
    """Something is wrong with a step. `ranks`: where it came from, as far as that can be said.

    `words`: also of what else was found at the step, which the other fields do not tell.
    """

    step: int
    kind: Kind
    action: Action | Literal["report"]
    ranks: tuple[int, ...]
    words: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class StepReport:
    """What happened in one step, over all ranks. `loss` in nats a token; `tokens` counts targets with a weight.

    `squared_document_tokens`: the squared lengths of the documents, added up: what attention costs.
    `grad_norm`: of the reduced gradients, nan where it is not finite. `rank_losses`: each rank's sum of nats;
    `rank_norms`: of each rank's own gradients (`OwnGradients.norm`); `broken`: by rank, the first parameter whose own
    gradient is not finite ("" for none). `anomaly`: what the guard found; unless it is only reported, the update is
    left out.
    """

    step: int
    loss: float
    tokens: int
    squared_document_tokens: int
    learning_rate: float
    grad_norm: float
    memory_bytes: tuple[int, ...] = ()
    anomaly: Anomaly | None = None
    rank_losses: tuple[float, ...] = ()
    rank_norms: tuple[float, ...] = ()
    broken: tuple[str, ...] = ()

    @property
    def updated(self) -> bool:
        """Whether the step changes the weights."""
        return self.anomaly is None or self.anomaly.action == "report"


@dataclass(frozen=True)
class Evaluation:
    """One held-out set at one step. `values`: the figures by name, `loss` in nats a prediction among them."""

    step: int
    name: str
    values: Mapping[str, float]
    seconds: float

    def __str__(self) -> str:
        """`dev accuracy 0.9101, loss 0.3214`, without what is counted."""
        shown = ("accuracy", "macro_f1", "bits_per_character", "loss")
        return f"{self.name} " + ", ".join(f"{key} {self.values[key]:.4f}" for key in shown if key in self.values)


@dataclass(frozen=True)
class Sample:
    """What the model wrote behind a prompt at one step, up to the end of the text."""

    step: int
    prompt: str
    text: str


@dataclass(frozen=True)
class Saved:
    """A finished checkpoint.

    stall_seconds: time that training was blocked by it. seconds: from its begin until it was whole. bytes: of this
    rank's part of the state.
    """

    path: Path
    step: int
    tokens: int = 0
    loss: float | None = None
    stall_seconds: float = 0.0
    seconds: float = 0.0
    bytes: int = 0
    asynchronous: bool = False
