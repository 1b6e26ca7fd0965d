"""Batches of pairs: what a row holds, and that a step is the same on any number of ranks and after any stop."""

from collections import Counter
from pathlib import Path

import pytest

from megadec.common.errors import ConfigError, ShardError
from megadec.common.tokenizer import Tokenizer
from megadec.data.pair_stream import PairBatch, PairStream, assemble_pairs
from megadec.data.pairs import PairOptions, PairSet, open_pairs
from tests.support.pair_texts import texts, write_pairs


@pytest.fixture
def pairs(tmp_path: Path, tokenizer: Tokenizer) -> PairSet:
    path = write_pairs(tmp_path / "pairs.txt", texts(100), "reverse")
    return open_pairs(PairOptions(source=str(path), held_out_fraction=0), tokenizer, "train")


def rows_of(batch: PairBatch) -> list[tuple[tuple[int, ...], ...]]:
    """Each row without its padding: source, ids, targets, weights."""
    found = []
    for row in range(batch.ids_BS.shape[0]):
        source, predictions = int(batch.source_lengths_B[row]), int((batch.weights_BS[row] > 0).sum())
        columns = (
            batch.source_ids_BT[row, :source],
            batch.ids_BS[row, :predictions],
            batch.targets_BS[row, :predictions],
        )
        assert not batch.weights_BS[row, predictions:].any()
        found.append(tuple(tuple(column.tolist()) for column in columns))
    return found


def test_a_row_holds_the_target_behind_its_start_and_before_its_end(pairs: PairSet) -> None:
    numbers = [5, 0, 77]
    batch = assemble_pairs(pairs, numbers)
    for number, (source, ids, targets) in zip(numbers, rows_of(batch), strict=True):
        target = tuple(pairs.targets[number].tolist())
        assert source == tuple(pairs.sources[number].tolist())
        assert ids == (pairs.bos_id, *target)
        assert targets == (*target, pairs.eos_id)
    lengths = [(len(pairs.sources[n]), len(pairs.targets[n]) + 1) for n in numbers]
    assert batch.valid_tokens == sum(target for _, target in lengths)
    assert batch.squared_document_tokens == sum(source * target for source, target in lengths)
    assert batch.ids_BS.shape[1] == max(target for _, target in lengths)
    assert set(batch.model_arguments()) == {"targets_BS", "weights_BS", "source_ids_BT", "source_lengths_B"}


def test_a_row_of_padding_counts_for_nothing_and_has_a_source_to_look_at(pairs: PairSet) -> None:
    batch = assemble_pairs(pairs, [3, None])
    assert not batch.weights_BS[1].any()
    assert batch.source_lengths_B[1] == 1
    assert assemble_pairs(pairs, [None]).valid_tokens == 0


def test_the_batch_of_a_step_is_the_same_for_any_number_of_ranks_and_micro_batches(pairs: PairSet) -> None:
    stream = PairStream(pairs, seed=3, global_batch_size=16)
    for step in (0, 7, 200):
        expected = Counter(rows_of(stream.batch(step)[0]))
        assert sum(expected.values()) == 16
        for world_size in (1, 2, 4):
            for micro in (1, 2, 4):
                found: Counter[tuple[tuple[int, ...], ...]] = Counter()
                for rank in range(world_size):
                    batches = stream.batch(step, rank, world_size, micro)
                    assert len(batches) == 16 // world_size // micro
                    found.update(row for batch in batches for row in rows_of(batch))
                assert found == expected


def test_a_micro_batch_holds_rows_of_like_length(pairs: PairSet) -> None:
    batches = PairStream(pairs, seed=3, global_batch_size=32).batch(0, micro_batch_size=8)
    lengths = [[len(targets) for _, _, targets in rows_of(batch)] for batch in batches]
    assert [length for one in lengths for length in one] == sorted(length for one in lengths for length in one)


def test_an_epoch_gives_every_pair_once_in_an_order_of_its_own(pairs: PairSet) -> None:
    stream = PairStream(pairs, seed=3, global_batch_size=20)
    assert stream.windows_per_epoch == 100
    epochs = [[number for step in range(5) for number in stream.pairs_of(5 * epoch + step)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert PairStream(pairs, seed=4, global_batch_size=20).pairs_of(0) != stream.pairs_of(0)


def test_a_stream_goes_on_from_its_state_and_from_none_of_another_sequence(
    pairs: PairSet, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    state = PairStream(pairs, seed=3, global_batch_size=16).state(9)
    assert PairStream(pairs, seed=3, global_batch_size=16).check(state) == 9
    for seed, size, words in ((4, 16, "seed is 4, the checkpoint has 3"), (3, 8, "global_batch_size is 8")):
        with pytest.raises(ConfigError, match=words):
            PairStream(pairs, seed, size).check(state)
    path = write_pairs(tmp_path / "other.txt", texts(100), "copy")
    other = open_pairs(PairOptions(source=str(path), held_out_fraction=0), tokenizer, "train")
    with pytest.raises(ShardError, match=r"pairs_sha256 is .* the checkpoint has"):
        PairStream(other, seed=3, global_batch_size=16).check(state)
