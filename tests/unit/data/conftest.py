"""What several files here read: the tiny set, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from megadec.data.index import DataSet


@pytest.fixture(scope="module")
def data(tiny_shards: Path) -> DataSet:
    return DataSet.open(tiny_shards)
