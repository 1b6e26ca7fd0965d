"""Documents that are left out: without weight, and nothing else changes."""

from pathlib import Path

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.data.dataset import DataSet
from megadec.data.skip_documents import find_skipped, read_ids
from megadec.data.stream import TrainStream
from megadec.data.windows import PLANS

# Two neighbours at the beginning, some from the middle, one of three hundred tokens and more, the last.
IDS = ("wiki-0", "news-1", "comments-101", "wiki-66", "news-199")


def stream_of(data: DataSet, packing: str, skipped: tuple[str, ...], sequence_parallel_size: int = 1) -> TrainStream:
    return TrainStream([(data, 1.0)], 32, packing, 5, 8, sequence_parallel_size, skipped)


@pytest.mark.parametrize("packing", PLANS)
def test_exactly_the_predictions_of_skipped_documents_lose_their_weight_in_an_epoch(
    data: DataSet, plan_cache: Path, packing: str
) -> None:
    known = {span.id: span for span in data.documents_between(0, data.tokens)}
    whole, without = stream_of(data, packing, ()), stream_of(data, packing, IDS)
    assert without.fingerprint == whole.fingerprint
    assert without.check(whole.state(7)) == 7
    lost = 0
    for step in range(-(-whole.windows_per_epoch // 8)):
        windows = whole.windows_at(step * 8, min(8, whole.windows_per_epoch - step * 8))
        [before], [after] = whole.batch(step), without.batch(step)
        for name in ("ids_BS", "targets_BS", "positions_BS", "documents_BS"):
            assert torch.equal(getattr(before, name), getattr(after, name)), (step, name)
        changed = (before.weights_BS != after.weights_BS)[: len(windows)]
        assert not after.weights_BS[: len(windows)][changed].any()
        lost += int(changed.sum())
    # Every token but the first of a document is predicted, once an epoch.
    assert lost == sum(known[one].tokens - 1 for one in IDS)


def test_a_row_that_ranks_share_loses_the_same_weights(data: DataSet) -> None:
    ids = ("wiki-0", "wiki-66", "wiki-150")
    [whole] = stream_of(data, "cut", ids).batch(0)
    parts = [stream_of(data, "cut", ids, sequence_parallel_size=2).batch(0, rank, 2)[0].weights_BS for rank in (0, 1)]
    assert torch.equal(torch.cat(parts, dim=1), whole.weights_BS)


def test_the_documents_of_a_rank_are_those_of_its_rows_without_the_skipped(data: DataSet) -> None:
    whole = stream_of(data, "cut", ())
    halves = [whole.documents(3, rank, 2) for rank in (0, 1)]
    assert set(halves[0]) | set(halves[1]) == set(whole.documents(3))
    skipped = halves[0][0]
    assert skipped not in stream_of(data, "cut", (skipped,)).documents(3, 0, 2)


def test_an_id_that_stands_in_no_set_is_named_and_so_is_the_way_to_find_ids(data: DataSet) -> None:
    with pytest.raises(ConfigError, match=r"data.skip_documents: 'wiki-1', 'x' \(2 of 3 ids\).*tools/show.py"):
        find_skipped([data], ["wiki-0", "wiki-1", "x"])


def test_ids_come_from_a_list_and_a_file_each_once(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("wiki-3\n\n  文章-1 \nwiki-3\n", encoding="utf-8")
    assert read_ids(["b", "wiki-3"], str(file)) == ("b", "wiki-3", "文章-1")
    with pytest.raises(ConfigError, match="skip_documents_file"):
        read_ids([], str(tmp_path / "none"))
