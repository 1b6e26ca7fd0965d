"""What the fine-tuning tests share: titles, and a decoder with random weights in a folder."""

from pathlib import Path

import pytest

from megadec.export.read.megadec import to_megadec
from tests.support.sources import random_source
from tests.support.titles import write_titles


@pytest.fixture
def titles_folder(tmp_path: Path) -> Path:
    return write_titles(tmp_path / "titles")


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_path: Path) -> Path:
    """A megadec folder with a tiny decoder of random weights. Treat it as read-only."""
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    to_megadec(random_source(tiny_tokenizer_path), folder)
    return folder
