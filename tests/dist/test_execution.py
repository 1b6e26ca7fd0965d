"""How blocks are executed (recomputed, in tiles, compiled) is not part of what a step computes: steps under ZeRO-3."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.decoder.compiled import missing_compiler
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns
from tests.support.train_many import do_plan

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


# A fused operation rounds to bf16 less often.
@pytest.mark.parametrize(
    ("precision", "tolerance"), [("fp32", 1e-5), pytest.param("bf16", 3e-3, marks=pytest.mark.slow)]
)
def test_steps_have_equal_losses_compiled_and_not(runs: TinyRuns, precision: str, tolerance: float) -> None:
    if reason := missing_compiler(torch.device("cpu")):
        pytest.skip(reason)
    executions: dict[str, dict[str, Any]] = {"eager": {}, "compiled": {"compile": "blocks"}}
    runs.train(*(
        runs.training(
            name,
            model={"execution": execution},
            train={"steps": STEPS, "precision": precision},
            evaluate={"interval_steps": STEPS, "windows": 4},
        )
        for name, execution in executions.items()
    ))  # fmt: skip
    expected = runs.losses("eager")
    assert len(expected) == STEPS
    assert expected[-1] < expected[0] - 0.3, "the decoder must learn something"
    assert runs.losses("compiled") == pytest.approx(expected, rel=tolerance)
    eager, compiled = ([line["loss"] for line in runs.metrics(name, "evaluate")] for name in executions)
    assert compiled == pytest.approx(eager, rel=tolerance)


def train_without_inductor(plan: Path) -> None:
    do_plan(plan)
    assert "torch._inductor.compile_fx" not in sys.modules


def test_a_run_that_compiles_nothing_starts_without_the_compiler(runs: TinyRuns) -> None:
    runs.train(runs.training("eager", train={"steps": 1}, evaluate=NO_EVALUATION), ranks=1, do=train_without_inductor)
    assert len(runs.losses("eager")) == 1
