"""The exact stream over three mixed sets: the same batches for any ranks and workers, wherever a run stops."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from megadec.common.errors import ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.corpus.shards import write_shards
from megadec.data.batch import Batch, assemble
from megadec.data.dataset import DataSet
from megadec.data.prefetch import Prefetcher
from megadec.data.stream import TrainStream, Window

ROWS, ROW_TOKENS, SEED = 12, 64, 11
WEIGHTS = (1.0, 2.0, 0.5)
RANKS = (1, 2, 3, 4)
WORKERS = (0, 1, 3)
LAYOUTS = [(1, 24), (1, 8), (1, 1), (2, 12), (2, 3), (3, 4), (4, 6), (4, 1)]


@pytest.fixture(scope="module")
def sets(tmp_path_factory, tiny_documents, tiny_tokenizer_path: Path) -> list[tuple[DataSet, float]]:
    folder = tmp_path_factory.mktemp("mixed")
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    parts = (tiny_documents[:100], tiny_documents[100:130], tiny_documents[130:])
    for number, documents in enumerate(parts):
        write_shards(documents, tokenizer, folder / str(number), block_tokens=2000, shard_bytes=2**14)
    return [(DataSet.open(folder / str(number)), weight) for number, weight in enumerate(WEIGHTS)]


@pytest.fixture
def stream(sets) -> TrainStream:
    return TrainStream(sets, ROW_TOKENS, "cut", SEED, ROWS)


def rows_of(batches: list[Batch]) -> list[bytes]:
    """The contents of each row, by which windows are told apart: no two of these sets hold the same tokens."""
    return [
        b"".join(tensor[row].numpy().tobytes() for tensor in batch.tensors())
        for batch in batches
        for row in range(len(batch.ids_BS))
    ]


def steps(stream: TrainStream, first: int, last: int, ranks: int, workers: int) -> Iterator[list[Batch]]:
    """The global batches of steps first, ..., last - 1 as that many ranks load them, each with its own workers."""

    makers = [lambda step, rank=rank: stream.batch(step, rank, ranks, 1) for rank in range(ranks)]
    loaders = [Prefetcher(make, first, last, workers=workers) for make in makers]
    try:
        for parts in zip(*loaders, strict=True):
            yield [batch for part in parts for batch in part]
    finally:
        for each in loaders:
            each.close()


def two_epochs(stream: TrainStream) -> int:
    return -(-2 * stream.windows_per_epoch // ROWS)


def test_two_epochs_with_20_stops_that_change_ranks_and_workers_repeat_and_skip_nothing(sets, stream):
    chance = random.Random(5)
    last = two_epochs(stream)
    windows = stream.windows_at(0, last * ROWS)
    rows = [(stream.plan(window.data_set), window.window) for window in windows]
    wanted = rows_of([assemble(rows, ROW_TOKENS, stream.sets[0][0].bos_id)])
    assert len(set(wanted)) == len(set(windows))
    stops = sorted(chance.sample(range(1, last), 20))
    found: list[bytes] = []
    layouts = set()
    for first, stop in zip([0, *stops], [*stops, last], strict=True):
        # Every start opens all anew and knows the state of the last one alone.
        state = TrainStream(sets, ROW_TOKENS, "cut", SEED, ROWS).state(first)
        started = TrainStream(
            [(DataSet.open(data.folder), weight) for data, weight in sets], ROW_TOKENS, "cut", SEED, ROWS
        )
        ranks, workers = chance.choice(RANKS), chance.choice(WORKERS)
        layouts.add((ranks, workers))
        for batches in steps(started, started.check(state), stop, ranks, workers):
            found += rows_of(batches)
    assert len(layouts) > 6
    assert found == wanted
    counted = Counter(stream.windows_at(0, 2 * stream.windows_per_epoch))
    for number, weight in enumerate(WEIGHTS):
        windows = stream.plan(number).windows
        times = [counted[Window(number, window)] for window in range(windows)]
        if weight >= 1:
            assert set(times) == {round(2 * weight)}
        else:  # two epochs of half the windows are all of them, but for one where their number is odd
            assert abs(sum(times) - windows) <= 1
            assert sum(time != 1 for time in times) <= 1


def test_a_shard_that_is_lost_between_two_starts_takes_its_own_rows_and_moves_no_other(sets, stream):
    (data, weight), *others = sets
    lame = TrainStream([(data.without({1: "it was cut"}), weight), *others], ROW_TOKENS, "cut", SEED, ROWS)
    assert lame.fingerprint == stream.fingerprint
    assert lame.check(stream.state(7)) == 7
    assert stream.check(lame.state(7)) == 7
    assert lame.state(7)["skipped"] == [[data.index["shards"][1]["sha256"]], [], []]
    lost = 0
    for step in range(two_epochs(stream)):
        for row, window in enumerate(stream.windows_of(step)):
            [whole], [left] = ([b.sequences(row, row + 1)] for b in (stream.batch(step)[0], lame.batch(step)[0]))
            if lame.is_lost(window):
                lost += 1
                assert left.valid_tokens == 0
                assert lame.documents_of(window) == []
            else:
                assert all(torch.equal(a, b) for a, b in zip(whole.tensors(), left.tensors(), strict=True))
    assert lost == 2 * len(lame.plan(0).lost) > 0


def test_the_lost_windows_are_those_that_read_a_token_of_a_lost_shard(sets):
    (data, _), *_ = sets
    for gone in ({0}, {1}, {0, 1}, {1, 2}, set(range(len(data.index["shards"]) - 1))):
        for sequence_length in (1, 7, 64, 5000):
            lame = data.without(dict.fromkeys(gone, "it is gone"))
            stream = TrainStream([(lame, 1.0)], sequence_length, "cut", 0, 1)
            reads = [stream.plan(0).pieces(window)[0] for window in range(stream.plan(0).windows)]
            lost = [any(a <= first + n and first < b for a, b in lame.lost_ranges) for first, n in reads]
            assert [stream.is_lost(Window(0, window)) for window in range(len(reads))] == lost
            readable = [window for window in range(len(reads)) if not lost[window]]
            for window in readable[:: max(1, len(readable) // 50)]:
                single = stream.plan(0).pieces(window)
                assert len(lame.tokens_at(single[0][0], single[0][1] + 1)) == single[0][1] + 1


def test_best_fit_packs_what_is_there_and_goes_on_only_with_the_same(sets, plan_cache):
    (data, _), *_ = sets
    lame = data.without({0: "it is gone"})
    whole, less = (TrainStream([(one, 1.0)], ROW_TOKENS, "best_fit", 0, 4) for one in (data, lame))
    steps, beyond = divmod(less.windows_per_epoch, 4)
    predictions = sum(less.batch(step)[0].valid_tokens for step in range(steps))
    # The first rows of the last step; the others begin the next epoch.
    predictions += less.batch(steps)[0].sequences(0, beyond).valid_tokens if beyond else 0
    shard = data.index["shards"][0]
    assert predictions == data.tokens - data.documents - (shard["tokens"] - shard["documents"])
    assert less.check(less.state(3)) == 3
    with pytest.raises(ShardError, match=r"goes without 1 damaged shard\(s\), the checkpoint went without 0"):
        less.check(whole.state(3))
    assert not any(less.is_lost(window) for window in less.windows_of(0))


@pytest.fixture(params=["cut", "best_fit"])
def packed(request, sets, plan_cache) -> TrainStream:
    return TrainStream(sets, 96, request.param, 5, 24)


@pytest.mark.parametrize(("ranks", "micro"), LAYOUTS)
def test_a_step_holds_the_same_rows_for_any_ranks_and_micro_batches(packed, ranks, micro):
    for step in (0, 1, 57, 10_000):
        whole = packed.batch(step)
        parts = [batch for rank in range(ranks) for batch in packed.batch(step, rank, ranks, micro)]
        assert len(parts) == 24 // micro
        assert {len(batch.ids_BS) for batch in parts} == {micro}
        assert rows_of(parts) == rows_of(whole)


def test_steps_follow_each_other_without_gap_and_a_stream_that_was_made_again_goes_on_with_the_same(packed, sets):
    steps = [window for step in range(400) for window in packed.windows_of(step)]
    assert steps == packed.windows_at(0, 400 * 24)
    again = TrainStream(sets, 96, packed.packing, 5, 24)
    assert rows_of(again.batch(again.check(packed.state(311)))) == rows_of(packed.batch(311))
