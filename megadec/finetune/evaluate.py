"""How good a classifier is on a held-out set, while it is trained.

In come a labelled set and what runs the model (`engine.task.Scorer`), out come loss, accuracy and macro F1. The set is
cut into the same micro-batches whatever the number of ranks, and their losses are added in the same order, so the
figures of one rank and of many are equal to the last bit; a last round may leave some ranks with padding.
"""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from megadec.common.errors import check_range
from megadec.data.batch import TokenBatch
from megadec.engine.evaluate import measure_rounds
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.ranks import Ranks
from megadec.engine.task import Scorer
from megadec.finetune.examples import LabelledSet
from megadec.finetune.packing import assemble_texts, pack_texts

# Shapes: N texts of a batch, L labels.

SET_NAME = "dev"


@dataclass(frozen=True)
class MeasureOptions:
    """Accuracy and F1 on `data.dev`, during fine-tuning.

    interval_steps: measure every this many steps, and at the start and the end.
    micro_batch_size: sequences of one rank at a time.
    """

    interval_steps: int = 100
    micro_batch_size: int = 8

    def __post_init__(self) -> None:
        check_range(self, "evaluate.", "interval_steps", "micro_batch_size", least=1)


def evaluate_classes(
    scorer: Scorer, data: LabelledSet, sequence_length: int, micro_batch_size: int, step: int, interrupt: Interrupt
) -> list[Evaluation] | None:
    """Loss (in nats a text, unweighted), accuracy and macro F1 of the whole held-out set, shared among the ranks; None
    as soon as any rank wants to stop. Collective.
    """
    began = time.perf_counter()
    ranks, labels = scorer.ranks, len(data.names)
    confusion_LL = np.zeros((labels, labels), dtype=np.int64)

    def measure(batch: TokenBatch) -> list[float]:
        last_BS = batch.weights_BS > 0
        logits_NL = scorer.logits(batch)[last_BS].double().cpu()
        true_N = batch.targets_BS[last_BS].cpu()
        nats_N = -logits_NL.log_softmax(-1).gather(1, true_N[:, None])[:, 0]
        np.add.at(confusion_LL, (true_N.numpy(), logits_NL.argmax(-1).numpy()), 1)
        # A place for each rank: adding zeros to a number is exact, and the order below is that of the micro-batches.
        message = [0.0] * ranks.world_size
        message[ranks.rank] = float(nats_N.sum())
        return message

    rounds = measure_rounds(scorer, text_batches(data, sequence_length, micro_batch_size, ranks), measure, interrupt)
    if rounds is None:
        return None
    nats = 0.0
    for own_nats in itertools.chain.from_iterable(rounds):
        nats += own_nats
    counts = ranks.sum_over_ranks(confusion_LL.flatten().tolist())
    confusion_LL = np.asarray(counts, dtype=np.int64).reshape(labels, labels)
    values = {
        "loss": nats / data.texts,
        "accuracy": float(np.trace(confusion_LL)) / data.texts,
        "macro_f1": macro_f1(confusion_LL),
    }
    return [Evaluation(step, SET_NAME, values, time.perf_counter() - began)]


def text_batches(data: LabelledSet, sequence_length: int, micro_batch_size: int, ranks: Ranks) -> Iterator[TokenBatch]:
    """This rank's micro-batches of the set; the last ones may be padding."""
    sequences = pack_texts(np.arange(data.texts), data.lengths, sequence_length)
    of_round = micro_batch_size * ranks.world_size
    sequences += [np.empty(0, dtype=np.int64)] * (-len(sequences) % of_round)
    for first in range(ranks.rank * micro_batch_size, len(sequences), of_round):
        yield assemble_texts(data, sequences[first : first + micro_batch_size], sequence_length)


def macro_f1(confusion_LL: np.ndarray) -> float:
    """The mean over labels of 2 * right / (said + true), labels that are neither said nor true left out."""
    right, both = np.diag(confusion_LL), confusion_LL.sum(0) + confusion_LL.sum(1)
    there = both > 0
    return float(np.mean(2 * right[there] / both[there])) if there.any() else 0.0
