"""Which windows of a held-out set are measured, how ranks share them, and what comes out."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.tokenizer import Tokenizer
from megadec.data.index import DataSet
from megadec.data.sharding import rank_position
from megadec.engine.evaluate import EvaluateOptions, evaluate_loss, evenly_spaced, window_batches
from megadec.engine.ranks import Ranks
from megadec.engine.task import Scorer


@given(st.integers(0, 10**9), st.integers(1, 500))
def test_the_windows_that_are_measured_are_distinct_in_order_and_reach_over_the_whole_set(
    windows: int, wanted: int
) -> None:
    taken = evenly_spaced(windows, wanted)
    assert len(taken) == min(windows, wanted)
    assert all(a < b for a, b in itertools.pairwise(taken))
    if taken:
        assert taken[0] == 0
        assert windows - taken[-1] <= -(-windows // len(taken))


def batches_of(shards: Path, rank: int, ranks: int) -> list[Any]:
    options = EvaluateOptions(windows=7, micro_batch_size=2)
    return list(window_batches(DataSet.open(shards), options, 32, 1, rank_position(rank, ranks, 1)))


def test_ranks_share_the_windows_and_do_as_many_batches_each(tiny_shards: Path) -> None:
    alone, shared = batches_of(tiny_shards, 0, 1), [batches_of(tiny_shards, rank, 3) for rank in range(3)]
    assert [len(batches) for batches in shared] == [2, 2, 2]
    of_rounds = [batch for batches in zip(*shared, strict=True) for batch in batches]
    for batch, wanted in zip(of_rounds, alone, strict=False):
        assert torch.equal(batch.ids_BS, wanted.ids_BS)
    assert [batch.valid_tokens for batch in of_rounds[len(alone) :]] == [0, 0], "padding"


def test_a_set_has_its_mean_loss_and_its_characters_and_a_wish_to_stop_ends_the_evaluation(
    tiny_shards: Path, tiny_tokenizer_path: Path
) -> None:
    tokenizer, batches = Tokenizer.load(tiny_tokenizer_path), batches_of(tiny_shards, 0, 1)
    ranks = Ranks(0, 1, torch.device("cpu"))
    model = SimpleNamespace(ranks=ranks, evaluating=nullcontext, loss_sum=lambda batch: 3 * batch.weights_BS.sum())

    def evaluate(stops: bool) -> Any:
        interrupt: Any = SimpleNamespace(requested=stops)
        return evaluate_loss(cast(Scorer, model), {"tiny": batches}, tokenizer, 5, interrupt)

    [found] = evaluate(stops=False)
    tokens = sum(batch.valid_tokens for batch in batches)
    targets = torch.cat([batch.targets_BS[batch.weights_BS > 0] for batch in batches])
    assert (found.step, found.name, found.values["loss"]) == (5, "tiny", 3.0)
    assert found.values["evaluated_tokens"] == tokens
    assert found.values["evaluated_characters"] == tokenizer.characters_per_id[targets.numpy()].sum()
    assert evaluate(stops=True) is None
