"""What several files here read: the tiny set, opened once."""

from pathlib import Path

import pytest

from megadec.data.dataset import DataSet


@pytest.fixture(scope="module")
def data(tiny_shards: Path) -> DataSet:
    return DataSet.open(tiny_shards)
