"""What is kept for the backward pass, and where, is not part of what a step computes: some steps under ZeRO-3."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

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


def test_steps_have_equal_losses_under_every_policy(runs: TinyRuns) -> None:
    runs.train(*(
        runs.training(name, model={"execution": execution}, evaluate=NO_EVALUATION)
        for name, execution in POLICIES.items()
    ))  # fmt: skip
    expected = runs.losses("none")
    assert len(expected) == 12
    assert expected[-1] < expected[0] - 0.5, "the decoder must learn something for the comparison to mean something"
    for name, execution in POLICIES.items():
        # Tiles add the gradient of a weight up in another order; nothing else is computed differently.
        tolerance = 1e-6 if "mlp_tile_tokens" in execution else 0.0
        assert runs.losses(name) == pytest.approx(expected, rel=tolerance, abs=0.0), name
