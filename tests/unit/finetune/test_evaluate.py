"""Figures on a held-out set: those of scikit-learn, and equal to the last bit for any number of ranks."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from threading import Barrier
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from megadec.data.batch import TokenBatch
from megadec.engine.metrics.reports import Evaluation
from megadec.finetune.evaluate import evaluate_classes, macro_f1
from megadec.finetune.examples import LabelledSet
from tests.unit.finetune.test_packing import ROW_TOKENS, labelled


class Together:
    """Ranks that are threads: what `engine.zero.Ranks` is to processes."""

    def __init__(self, rank: int, everyone: list[list[float]], barrier: Barrier) -> None:
        self.rank, self.world_size, self.device = rank, len(everyone), torch.device("cpu")
        self._everyone, self._barrier = everyone, barrier

    def sum_over_ranks(self, values: Sequence[float]) -> list[float]:
        self._everyone[self.rank] = list(values)
        self._barrier.wait()
        sums = [sum(column) for column in zip(*self._everyone, strict=True)]
        self._barrier.wait()
        return sums


def logits_of(batch: TokenBatch) -> Tensor:
    """Logits that are a function of the id at each place alone."""
    return torch.stack([torch.sin(batch.ids_BS * (0.7 + n)) for n in range(3)], dim=-1).float()


def measured(data: LabelledSet, ranks: int, stops: bool = False) -> list[list[Evaluation] | None]:
    everyone: list[list[float]] = [[] for _ in range(ranks)]
    barrier = Barrier(ranks)

    def of_rank(rank: int) -> list[Evaluation] | None:
        own = Together(rank, everyone, barrier)
        scorer: Any = SimpleNamespace(ranks=own, evaluating=nullcontext, logits=logits_of)
        interrupt: Any = SimpleNamespace(requested=stops)
        return evaluate_classes(scorer, data, ROW_TOKENS, 2, 7, interrupt)

    with ThreadPoolExecutor(ranks) as threads:
        return list(threads.map(of_rank, range(ranks)))


def test_the_figures_are_those_of_one_text_after_the_other() -> None:
    data = labelled()
    [[found]] = measured(data, 1)
    last = data.tokens[data.starts[1:] - 1].astype(np.float64)
    logits = torch.stack([torch.from_numpy(np.sin(last * (0.7 + n))).float() for n in range(3)], dim=-1).double()
    true = torch.from_numpy(data.labels)
    nats = torch.nn.functional.cross_entropy(logits, true)
    assert (found.step, found.name) == (7, "dev")
    assert found.values["loss"] == pytest.approx(float(nats), rel=1e-5)
    assert found.values["accuracy"] == pytest.approx(float((logits.argmax(-1) == true).double().mean()))


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_figures_are_equal_to_the_last_bit_for_any_number_of_ranks(ranks: int) -> None:
    data = labelled()
    [[alone]] = measured(data, 1)
    for [found] in measured(data, ranks):
        assert found.values == alone.values


def test_a_wish_to_stop_ends_the_measuring_on_every_rank() -> None:
    assert measured(labelled(), 2, stops=True) == [None, None]


def test_macro_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    chance = np.random.default_rng(0)
    true, said = chance.integers(0, 4, 200), chance.integers(1, 5, 200)
    confusion = np.zeros((7, 7), dtype=np.int64)
    np.add.at(confusion, (true, said), 1)
    assert macro_f1(confusion) == pytest.approx(metrics.f1_score(true, said, average="macro"))
    assert macro_f1(np.zeros((3, 3), dtype=np.int64)) == 0.0
