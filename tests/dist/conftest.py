"""Tiny runs of pretraining."""

from pathlib import Path

import pytest

from tests.support.tiny_runs import TinyRuns


@pytest.fixture
def runs(tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path) -> TinyRuns:
    return TinyRuns(tmp_path, tiny_tokenizer_path, tiny_shards)
