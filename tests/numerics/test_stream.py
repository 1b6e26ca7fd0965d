"""The laws of the stream: the batch of step N is the same for any number of ranks, and every window comes once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.batch import TokenBatch
from megadec.data.index import DataSet
from megadec.data.prefetch import Prefetcher
from megadec.data.stream import TrainStream

LAYOUTS = [(1, 24), (1, 8), (1, 1), (2, 12), (2, 3), (3, 4), (4, 6), (4, 1)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tiny_shards: Path, tiny_documents, tiny_tokenizer_path) -> list[tuple[DataSet, float]]:
    folder = tmp_path_factory.mktemp("sets")
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    write_shards(tiny_documents[:60], tokenizer, folder / "second", block_tokens=2000)
    write_shards(tiny_documents[100:], tokenizer, folder / "third", block_tokens=3000)
    return [
        (DataSet.open(tiny_shards), 1.0),
        (DataSet.open(folder / "second"), 2.0),
        (DataSet.open(folder / "third"), 0.5),
    ]


@pytest.fixture(params=["cut", "best_fit"])
def stream(request, sets, plan_cache) -> TrainStream:
    return TrainStream(sets, 96, request.param, 5, 24)


def joined(batches: list[TokenBatch]) -> list[torch.Tensor]:
    return [torch.cat(parts) for parts in zip(*(batch.tensors() for batch in batches), strict=True)]


def assert_equal(one: list[TokenBatch], other: list[TokenBatch]) -> None:
    for left, right in zip(joined(one), joined(other), strict=True):
        assert torch.equal(left, right)


@pytest.mark.parametrize(("ranks", "micro"), LAYOUTS)
def test_a_step_holds_the_same_rows_for_any_ranks_and_micro_batches(stream, ranks, micro):
    for step in (0, 1, 57, 10_000):
        whole = stream.batch(step)
        parts = [batch for rank in range(ranks) for batch in stream.batch(step, rank, ranks, micro)]
        assert len(parts) == 24 // micro
        assert {len(batch.ids_BS) for batch in parts} == {micro}
        assert_equal(parts, whole)


def test_two_epochs_see_every_window_as_often_as_its_weight_says(stream):
    seen = Counter(stream.windows_at(0, 2 * stream.windows_per_epoch))
    for number, (_, weight) in enumerate(stream.sets):
        counts = [count for window, count in seen.items() if window.data_set == number]
        if weight >= 1:
            assert set(counts) == {2 * int(weight)}
        else:
            # Half of an odd number of windows is rounded, so at most one window comes early.
            assert sum(counts) - len(counts) <= 1


def test_the_windows_of_steps_follow_each_other_without_gap(stream):
    steps = [window for step in range(400) for window in stream.windows_of(step)]
    assert steps == stream.windows_at(0, 400 * 24)


def test_a_stream_that_was_made_again_goes_on_with_the_same_batches(stream, sets):
    again = TrainStream(sets, 96, stream.packing, 5, 24)
    step = again.check(stream.state(311))
    assert_equal(again.batch(step), stream.batch(311))


@pytest.mark.parametrize("depth", [1, 3])
def test_prefetched_batches_equal_those_made_directly(stream, depth):
    with Prefetcher(lambda step: stream.batch(step, 1, 2, 4), 7, 30, depth=depth) as batches:
        for step, batch in enumerate(batches, start=7):
            assert_equal(batch, stream.batch(step, 1, 2, 4))
        assert step == 29


def test_an_epoch_of_cut_windows_predicts_every_token_but_boundaries_once(sets):
    data = sets[0][0]
    stream = TrainStream([(data, 1.0)], 96, "cut", 0, 1)
    valid = sum(stream.batch(step)[0].valid_tokens for step in range(stream.windows_per_epoch))
    assert valid == data.tokens - data.documents
