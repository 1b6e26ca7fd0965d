"""Compiled blocks under ZeRO-3, gathered as a whole on two ranks, train like eager ones."""

from __future__ import annotations

import pytest
import torch

from megadec.decoder.compiled import missing_compiler
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STEPS = 12


def test_steps_have_equal_losses_compiled_and_not(runs: TinyRuns) -> None:
    if reason := missing_compiler(torch.device("cpu")):
        pytest.skip(reason)
    plan = []
    for precision in ("fp32", "bf16"):
        for name, execution in ((precision, {}), (f"{precision}_compiled", {"compile": "blocks"})):
            train = {"steps": STEPS, "precision": precision}
            evaluate = {"interval_steps": STEPS, "windows": 8} if precision == "fp32" else NO_EVALUATION
            plan.append(runs.training(name, model={"execution": execution}, train=train, evaluate=evaluate))
    runs.train(*plan)
    # A fused operation rounds to bf16 less often.
    for precision, tolerance in (("fp32", 1e-5), ("bf16", 3e-3)):
        expected, found = runs.losses(precision), runs.losses(f"{precision}_compiled")
        assert len(expected) == STEPS
        assert expected[-1] < expected[0] - 0.5, "the decoder must learn something"
        assert found == pytest.approx(expected, rel=tolerance), precision
    eager, compiled = ([line["loss"] for line in runs.metrics(name, "evaluate")] for name in ("fp32", "fp32_compiled"))
    assert compiled == pytest.approx(eager, rel=1e-5)
