"""A stream of several stages: the same batches for any ranks, wherever it begins; a new order only where it must."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.batch import Batch
from megadec.data.dataset import DataSet
from megadec.data.prefetch import Prefetcher
from megadec.data.stages import StagedStream
from megadec.data.stream import TrainStream

RANKS = (1, 2, 3)
LAST = 60


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tiny_documents, tiny_tokenizer_path: Path, tiny_shards: Path) -> list[DataSet]:
    folder = tmp_path_factory.mktemp("good")
    write_shards(tiny_documents[40:90], Tokenizer.load(tiny_tokenizer_path), folder, block_tokens=4096)
    return [DataSet.open(tiny_shards), DataSet.open(folder)]


def staged(sets: list[DataSet], anneal_at: int = 20, long_at: int = 40, **more: Any) -> StagedStream:
    """Mixture and batch change, then the length of sequences."""
    tiny, good = sets
    start = TrainStream([(tiny, 1.0)], 32, "cut", 5, 6, **more)
    mixed = [(tiny, 0.5), (good, 2.0)]
    anneal = start.next_stage("anneal", anneal_at, mixed, sequence_length=32, packing="cut", global_batch_size=12)
    long = anneal.next_stage("long", long_at, mixed, sequence_length=64, packing="cut", global_batch_size=12)
    return StagedStream(sets, [start, anneal, long])


def rows_of(batches: list[Batch]) -> list[bytes]:
    return [row.numpy().tobytes() for batch in batches for row in batch.ids_BS]


@pytest.mark.parametrize("ranks", RANKS)
def test_a_loader_that_works_ahead_crosses_from_stage_to_stage_and_gives_each_step_the_same_rows_for_any_ranks(
    sets: list[DataSet], ranks: int
) -> None:
    stream = staged(sets)
    wanted = [rows_of(stream.batch(step)) for step in range(LAST)]
    assert [len(rows) for rows in wanted] == [6] * 20 + [12] * 40
    assert [len(rows[0]) // 8 for rows in wanted] == [32] * 40 + [64] * 20
    micro = [2 if 20 <= step < 40 else 1 for step in range(LAST)]
    for first in (0, 19, 33):
        state = stream.state(first)
        begun = staged(sets)
        makers = [
            lambda step, begun=begun, rank=rank: begun.batch(step, rank, ranks, micro[step]) for rank in range(ranks)
        ]
        loaders = [Prefetcher(make, begun.check(state), LAST, workers=2) for make in makers]
        for step, parts in zip(range(first, LAST), zip(*loaders, strict=True), strict=True):
            assert {len(batch.ids_BS) for part in parts for batch in part} == {micro[step]}
            assert [row for part in parts for row in rows_of(part)] == wanted[step], step
        for loader in loaders:
            loader.close()


def test_where_only_the_batch_changes_the_epoch_goes_on_and_elsewhere_the_order_is_a_new_one(
    sets: list[DataSet],
) -> None:
    tiny, _ = sets
    start = TrainStream([(tiny, 1.0)], 32, "cut", 5, 6)
    larger = start.next_stage("ramp", 4, [(tiny, 1.0)], sequence_length=32, packing="cut", global_batch_size=10)
    stream = StagedStream([tiny], [start, larger])
    steps = (start.windows_per_epoch - 24) // 10
    seen = Counter(window for step in range(4 + steps) for window in stream.windows_of(step))
    assert set(seen.values()) == {1}, "a window came twice before all had come"
    assert stream.state(9)["epoch"] == (24 + 50) // start.windows_per_epoch
    twice = start.next_stage("twice", 4, [(tiny, 2.0)], sequence_length=32, packing="cut", global_batch_size=6)
    assert twice.windows_of(4) != start.windows_of(0)
    assert (twice.place_of(4), larger.place_of(4)) == (0, 24)


def test_only_stages_that_have_begun_are_compared_with_a_checkpoint(sets: list[DataSet]) -> None:
    stream, alone = staged(sets), StagedStream(sets[:1], staged(sets).stages[:1])
    # Before the first change a state is that of a run without stages.
    assert {**stream.state(20), "skipped": [[]]} == alone.state(20)
    assert alone.check(stream.state(20)) == 20
    assert stream.check(alone.state(20)) == 20
    assert staged(sets, anneal_at=21).check(stream.state(20)) == 20
    assert staged(sets, long_at=50).check(stream.state(40)) == 40
    with pytest.raises(ConfigError, match=r"1 stage\(s\) begin up to step 21, and the checkpoint has 2"):
        alone.check(stream.state(21))
    with pytest.raises(ConfigError, match=r"first_step is 19, the checkpoint has 20: .* --stage=NAME"):
        staged(sets, anneal_at=19).check(stream.state(21))


def test_a_document_to_skip_may_stand_in_the_sets_of_one_stage_alone(sets: list[DataSet]) -> None:
    _, good = sets
    [id] = {span.id for span in good.documents_between(0, 1)}
    start = TrainStream([(good, 1.0)], 32, "cut", 5, 6, skip_documents=(id, "nobody"))
    with pytest.raises(ConfigError, match=r"'nobody' \(1 of 2 ids\) stand in none"):
        StagedStream([good], [start]).find_skipped()
    stream = staged(sets, skip_documents=(id,))
    stream.find_skipped()
    free = staged(sets)
    for step in range(20, 30):
        [less], [all_of_it] = stream.batch(step), free.batch(step)
        assert torch.equal(less.ids_BS, all_of_it.ids_BS)
        assert (less.valid_tokens < all_of_it.valid_tokens) == (id in free.documents(step))
