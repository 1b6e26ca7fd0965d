"""What is drawn is the same each time."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_numbers_each_time() -> None:
    torch.manual_seed(0)
