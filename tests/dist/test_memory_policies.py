"""What is kept for the backward pass, and where, is not part of what a step computes: some steps under ZeRO-3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import losses_of, train_all

STEPS = 12

# Two rows of 32 tokens are a micro-batch: tiles of 24 tokens cut across rows, and the last one is shorter.
POLICIES: dict[str, dict[str, Any]] = {
    "none": {},
    "every_nth": {"recompute": {"mode": "every_nth", "every": 2}},
    "full": {"recompute": {"mode": "full", "offload": True}},
    "selective": {"recompute": {"mode": "selective"}},
    "attention": {"recompute": {"mode": "selective", "keep": ["attention"]}},
    "all": {"recompute": {"mode": "selective", "keep": ["qkv", "attention", "output", "gate_up"]}},
    "tiles": {"mlp_tile_tokens": 24},
    "full_tiles": {"mlp_tile_tokens": 24, "recompute": {"mode": "full"}},
}


def test_steps_have_equal_losses_under_every_policy(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for name, execution in POLICIES.items():
        run = make_run(name, model={"execution": execution}, train={"steps": STEPS}, evaluate={"sets": {}})
        plan.append({"run": str(run), "deepspeed": str(zero_file("zero3"))})
    train_all(tmp_path, plan)
    expected = losses_of(tmp_path / "runs" / "none")
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] - 0.5, "the decoder must learn something for the comparison to mean something"
    for name, execution in POLICIES.items():
        # Tiles add the gradient of a weight up in another order; nothing else is computed differently.
        tolerance = 1e-6 if "mlp_tile_tokens" in execution else 0.0
        assert losses_of(tmp_path / "runs" / name) == pytest.approx(expected, rel=tolerance, abs=0.0), name
