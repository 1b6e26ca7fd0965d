"""Which windows of a held-out set are measured, and how ranks share them."""

import itertools
from pathlib import Path
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from megadec.data.dataset import DataSet
from megadec.data.resumable import rank_position
from megadec.engine.evaluate import evenly_spaced, window_batches
from megadec.engine.evaluate_options import EvaluateOptions


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
