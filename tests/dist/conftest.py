"""Tiny runs of pretraining, and the shipped DeepSpeed files for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import run_maker, zero_maker


@pytest.fixture
def make_run(tmp_path: Path, tiny_tokenizer_path: Path, tiny_shards: Path) -> Callable[..., Path]:
    return run_maker(tmp_path, tiny_tokenizer_path, tiny_shards)


@pytest.fixture
def zero_file(tmp_path: Path) -> Callable[..., Path]:
    return zero_maker(tmp_path)
