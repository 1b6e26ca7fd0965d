"""How blocks are executed (recomputed, in tiles, compiled) is not part of what a step computes: steps under ZeRO-3."""

from typing import Any

import pytest
import torch

from megadec.decoder.compiled import missing_compiler
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STEPS = 6
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
        runs.training(name, model={"execution": execution}, train={"steps": STEPS}, evaluate=NO_EVALUATION)
        for name, execution in POLICIES.items()
    ))  # fmt: skip
    expected = runs.losses("none")
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] - 0.3, "the decoder must learn something for the comparison to mean something"
    for name, execution in POLICIES.items():
        # Tiles add the gradient of a weight up in another order; nothing else is computed differently.
        tolerance = 1e-6 if "mlp_tile_tokens" in execution else 0.0
        assert runs.losses(name) == pytest.approx(expected, rel=tolerance, abs=0.0), name


def test_steps_have_equal_losses_compiled_and_not(runs: TinyRuns) -> None:
    if reason := missing_compiler(torch.device("cpu")):
        pytest.skip(reason)
    plan = []
    for precision in ("fp32", "bf16"):
        for name, execution in ((precision, {}), (f"{precision}_compiled", {"compile": "blocks"})):
            train = {"steps": STEPS, "precision": precision}
            evaluate = {"interval_steps": STEPS, "windows": 4} if precision == "fp32" else NO_EVALUATION
            plan.append(runs.training(name, model={"execution": execution}, train=train, evaluate=evaluate))
    runs.train(*plan)
    # A fused operation rounds to bf16 less often.
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 3e-3)):
        expected, found = runs.losses(precision), runs.losses(f"{precision}_compiled")
        assert len(expected) == STEPS
        assert expected[-1] < expected[0] - 0.3, "the decoder must learn something"
        assert found == pytest.approx(expected, rel=tolerance), precision
    eager, compiled = ([line["loss"] for line in runs.metrics(name, "evaluate")] for name in ("fp32", "fp32_compiled"))
    assert compiled == pytest.approx(eager, rel=1e-5)
