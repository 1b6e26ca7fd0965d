"""Compiled blocks under ZeRO-3, gathered as a whole on two ranks, train like eager ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.decoder.compiled import missing_compiler
from tests.support.processes import TRAIN_MANY, losses_of, metrics_of, run_ranks

STEPS = 12
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "fp32": ("fp32", {}),
    "fp32_compiled": ("fp32", {"compile": "blocks"}),
    "bf16": ("bf16", {}),
    "bf16_compiled": ("bf16", {"compile": "blocks"}),
}


def evaluations_of(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics_of(folder, "evaluate")]


def test_steps_have_equal_losses_compiled_and_not(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    if reason := missing_compiler(torch.device("cpu")):
        pytest.skip(reason)
    plan = []
    for name, (precision, execution) in RUNS.items():
        train = {"steps": STEPS, "precision": precision}
        evaluate = {"interval_steps": STEPS, "windows": 8} if precision == "fp32" else {"sets": {}}
        run = make_run(name, model={"execution": execution}, train=train, evaluate=evaluate)
        plan.append({"run": str(run), "deepspeed": str(zero_file("zero3"))})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run_ranks(TRAIN_MANY, [str(tmp_path / "plan.json")], 2)
    for name, (precision, _) in RUNS.items():
        folder, eager = tmp_path / "runs" / name, tmp_path / "runs" / precision
        expected = losses_of(eager)
        assert len(expected) == STEPS
        assert expected[-1] < expected[0] - 0.5, "the decoder must learn something"
        tolerance = 1e-5 if precision == "fp32" else 3e-3  # a fused operation rounds to bf16 less often
        assert losses_of(folder) == pytest.approx(expected, rel=tolerance), name
        if precision == "fp32":
            assert evaluations_of(folder) == pytest.approx(evaluations_of(eager), rel=tolerance), name
