"""What was drawn outside of steps goes on after a restart."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from megadec.engine.checkpoint.rng_state import random_file, random_state, restore_random_state


def draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), random.random(), float(np.random.rand())


def test_what_comes_next_is_what_would_have_come_and_a_rank_that_was_not_there_draws_on(tmp_path: Path) -> None:
    (tmp_path / random_file(1)).write_bytes(random_state())
    first = draw()
    restore_random_state(tmp_path, 1)
    assert draw() == first
    restore_random_state(tmp_path, 2)
    assert draw() != first
