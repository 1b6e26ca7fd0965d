"""The laws of the stream: the batch of step N is the same for any number of ranks, and steps follow without gap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.batch import TokenBatch
from megadec.data.index import DataSet
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


def test_the_windows_of_steps_follow_each_other_without_gap(stream):
    steps = [window for step in range(400) for window in stream.windows_of(step)]
    assert steps == stream.windows_at(0, 400 * 24)


def test_a_stream_that_was_made_again_goes_on_with_the_same_batches(stream, sets):
    again = TrainStream(sets, 96, stream.packing, 5, 24)
    step = again.check(stream.state(311))
    assert_equal(again.batch(step), stream.batch(311))
