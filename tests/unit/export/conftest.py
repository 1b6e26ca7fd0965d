"""A decoder with random weights for the tests of exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from megadec.export.read.source import ModelSource
from tests.support.sources import random_source


@pytest.fixture(scope="session")
def make_source(tiny_tokenizer_path: Path) -> Callable[..., ModelSource]:
    """`random_source` with the tiny tokenizer."""

    def make(**changes: object) -> ModelSource:
        return random_source(tiny_tokenizer_path, **changes)

    return make
