"""How good a classifier is on a held-out set, while it is trained.

In come a labelled set and what runs the model (`engine.task.Scorer`), out come loss, accuracy and macro F1. The set is
cut into the same micro-batches whatever the number of ranks, and their losses are added in the same order, so the
figures of one rank and of many are equal to the last bit; a last round may leave some ranks with padding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from megadec.common.errors import ConfigError
from megadec.data.batch import TokenBatch
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.task import Scorer
from megadec.finetune.examples import LabelledSet
from megadec.finetune.rows import assemble_texts, pack_rows

# Shapes: N texts of a batch, L labels.

SET_NAME = "dev"


@dataclass(frozen=True)
class MeasureOptions:
    """`interval_steps`: measure `data.dev` so often, and at the end. `micro_batch_size`: rows of a rank at a time."""

    interval_steps: int = 100
    micro_batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("interval_steps", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)} is not at least 1")


class ClassifyEvaluator:
    """The whole held-out set, shared among the ranks."""

    def __init__(self, data: LabelledSet, sequence_length: int, micro_batch_size: int, scorer: Scorer) -> None:
        rows = pack_rows(np.arange(data.texts), data.lengths, sequence_length)
        empty = np.empty(0, dtype=np.int64)
        rows += [empty] * (-len(rows) % micro_batch_size)
        self._parts = [rows[first : first + micro_batch_size] for first in range(0, len(rows), micro_batch_size)]
        self._nothing = [empty] * micro_batch_size
        self._data = data
        self._sequence_length = sequence_length
        self._scorer = scorer

    def evaluate(self, step: int, interrupt: Interrupt) -> list[Evaluation] | None:
        """Loss (in nats a text, unweighted), accuracy and macro F1; None as soon as any rank wants to stop.

        Collective.
        """
        began = time.perf_counter()
        ranks = self._scorer.ranks
        confusion, nats = np.zeros((len(self._data.names),) * 2, dtype=np.int64), 0.0
        with self._scorer.evaluating():
            for first in range(0, len(self._parts), ranks.world_size):
                mine = first + ranks.rank
                part = self._parts[mine] if mine < len(self._parts) else self._nothing
                own_nats, counted = self._measure(part)
                confusion += counted
                # A place for each rank: adding zeros to a number is exact, and the order below is that of the parts.
                message = [0.0] * ranks.world_size
                message[ranks.rank] = own_nats
                *of_ranks, stops = ranks.sum_over_ranks([*message, float(interrupt.requested)])
                if stops:
                    return None
                for of_rank in of_ranks:
                    nats += of_rank
        counts = ranks.sum_over_ranks(confusion.flatten().tolist())
        confusion = np.asarray(counts, dtype=np.int64).reshape(confusion.shape)
        values = {
            "loss": nats / self._data.texts,
            "accuracy": float(np.trace(confusion)) / self._data.texts,
            "macro_f1": macro_f1(confusion),
        }
        return [Evaluation(step, SET_NAME, values, time.perf_counter() - began)]

    def _measure(self, part: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
        """The sum of nats and the confusion matrix (rows: true labels) of a micro-batch."""
        batch = assemble_texts(self._data, part, self._sequence_length).to(self._scorer.ranks.device)
        nats_N, said_N, true_N = said_of_texts(self._scorer, batch)
        labels = len(self._data.names)
        pairs = np.bincount((true_N * labels + said_N).numpy(), minlength=labels * labels)
        return float(nats_N.sum()), pairs.reshape(labels, labels)


def said_of_texts(scorer: Scorer, batch: TokenBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each text of the batch: nats (float64), the label that the model says, and its own (int64), on the CPU."""
    last_BS = batch.weights_BS > 0
    logits_NL = scorer.logits(batch)[last_BS].double().cpu()
    true_N = batch.targets_BS[last_BS].cpu()
    nats_N = -logits_NL.log_softmax(-1).gather(1, true_N[:, None])[:, 0]
    return nats_N, logits_NL.argmax(-1), true_N


def macro_f1(confusion_LL: np.ndarray) -> float:
    """The mean over labels of 2 * right / (said + true), labels that are neither said nor true left out."""
    right, both = np.diag(confusion_LL), confusion_LL.sum(0) + confusion_LL.sum(1)
    there = both > 0
    return float(np.mean(2 * right[there] / both[there])) if there.any() else 0.0
