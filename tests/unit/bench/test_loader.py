"""The benchmark of the loader compares loaders that give the same windows."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.loader import OURS, LoaderOptions, check_same_windows, loaders, write_sparse_set
from megadec.common.errors import TrainingError
from megadec.data.dataset import DataSet
from megadec.data.stream import TrainStream

# webdataset leaves its tars open for the garbage collector, which must come while the warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    yield
    gc.collect()


@pytest.mark.parametrize("sequence_length", [64, 100])
def test_every_loader_gives_the_same_windows(tiny_shards: Path, tmp_path: Path, sequence_length: int) -> None:
    data = DataSet.open(tiny_shards)
    windows = -(-(data.tokens - 1) // sequence_length)
    cases, _ = loaders(data, tmp_path, LoaderOptions(tiny_shards, sequence_length, rows=7))
    assert {OURS, "webdataset", "webdataset_on_our_shards"} <= cases.keys()
    check_same_windows(cases, windows)


def test_a_loader_that_gives_others_is_found(tiny_shards: Path, tmp_path: Path) -> None:
    data = DataSet.open(tiny_shards)
    cases, _ = loaders(data, tmp_path, LoaderOptions(tiny_shards, 64, rows=8))
    other = TrainStream([(data, 1.0)], 64, "cut", 0, 8)
    cases["short"] = lambda: (other.batch(step)[0] for step in range(3))
    with pytest.raises(TrainingError, match="short gives 24 other windows"):
        check_same_windows(cases, -(-(data.tokens - 1) // 64))


def test_a_sparse_set_opens_as_a_set_of_that_many_windows(tmp_path: Path) -> None:
    write_sparse_set(tmp_path, 600, 2**20)
    data = DataSet.open(tmp_path)
    stream = TrainStream([(data, 1.0)], 2**20, "cut", 0, 1)
    assert stream.windows_per_epoch >= 600
    assert len(data.index["shards"]) == 5
    assert sum(path.stat().st_blocks * 512 for path in tmp_path.glob("*.tar")) < 10**6
