"""What a run trains: a model, its first weights, its batches and its measure, as one value.

The loop, the step, the checkpoints and the metrics know a `Task` and nothing of decoders, classes or pairs. In comes an
opened run (`runs/open_pretrain.py`, `finetune/task.py`, ...), out go the functions that the loop calls. Functions in a
frozen dataclass instead of a base class, so that a task is assembled in one place and there is nothing to override.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from megadec.data.batch import Batch
from megadec.data.resumable import ResumableStream
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.model import Decoder
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation, Sample
from megadec.engine.ranks import Ranks

Kind = Literal["language_model", "classification", "seq2seq"]


class Shape(Protocol):
    """The numbers that make a model: a frozen dataclass."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, as they go into a checkpoint's manifest."""

    def defaults(self) -> dict[str, Any]:
        """The values of the fields that need not be given."""


class Scorer(Protocol):
    """What an evaluator needs of a model: a ZeroEngine in training, a single process when scoring an export."""

    @property
    def ranks(self) -> Ranks:
        """The processes that share the work."""

    def evaluating(self) -> AbstractContextManager[None]:
        """No gradients, evaluation mode."""

    def loss_sum(self, batch: Batch) -> Tensor:
        """The sum over the batch's predictions of weight * nats."""

    def logits(self, batch: Batch) -> Tensor:
        """The model's logits, without targets."""


class Writer(Scorer, Protocol):
    """What writing texts needs of a language model in training."""

    @property
    def decoder(self) -> Decoder:
        """The model itself."""

    def next_logits(self, ids_BS: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits [B, 1, V] behind the last of `ids_BS`, which follow what the cache holds and join it. Collective."""


# (model, step, interrupt) -> the figures of every held-out set; None as soon as any rank wants to stop. Collective.
Evaluate = Callable[[Scorer, int, Interrupt], list[Evaluation] | None]
# (model, step, interrupt) -> what it writes; None as soon as any rank wants to stop. Collective.
WriteSamples = Callable[[Writer, int, Interrupt], list[Sample] | None]


class InitialWeights(Protocol):
    """A model on disk to begin from; `export.read.open_model.open_model` opens one."""

    @property
    def path(self) -> Path:
        """Where it lies, for messages."""

    @property
    def content(self) -> str:
        """What identifies it, wherever it lies."""

    @property
    def shape(self) -> Any:
        """The numbers that made it."""

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer that it was trained with."""

    def tensor(self, name: str) -> Tensor:
        """One tensor by our name."""


@dataclass(frozen=True)
class Task:
    """build: makes the model, inside DeepSpeed's zero.Init at stage 3; its forward(ids_BS, **batch.model_arguments())
    gives the float32 sum over predictions of weight * nats.

    sizes: every parameter's size by name, a tied one once. first_value: a parameter's first value, float32 on the CPU.
    flops: (tokens, sum of squared document lengths) -> operations of forward and backward. evaluate: None where nothing
    is held out, with evaluate_interval_steps 0. write_samples: called with it, None where nothing is asked for.
    details: JSON that goes into the checkpoint's manifest. tied: names of one and the same tensor. workers,
    prefetch_steps: how batches are made ahead, as `DataOptions` says. agree_on_data: compares what the ranks found of
    the data and gives the stream of all; collective. largest_batch: the micro-batch of so many sequences that takes the
    most memory; None where all have one size.
    """

    kind: Kind
    shape: Shape
    build: Callable[[], nn.Module]
    sizes: Mapping[str, tuple[int, ...]]
    first_value: Callable[[str], Tensor]
    flops: Callable[[int, int], int]
    stream: ResumableStream
    evaluate: Evaluate | None = None
    evaluate_interval_steps: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    tied: tuple[tuple[str, ...], ...] = ()
    workers: int = 1
    prefetch_steps: int = 2
    agree_on_data: Callable[[Ranks], ResumableStream] | None = None
    largest_batch: Callable[[int], Batch] | None = None
    write_samples: WriteSamples | None = None

    @property
    def manifest(self) -> dict[str, Any]:
        """What a checkpoint says of the task."""
        return {"kind": self.kind, **self.details}
