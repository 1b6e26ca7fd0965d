"""A run that was stopped and went on is the run that never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dist.conftest import losses_of, metrics_of, run_ranks

TRAIN_MANY = Path(__file__).parent / "train_many.py"
CASES = [("zero3", "fp32"), ("zero3", "bf16"), ("zero2", "bf16"), ("zero1", "bf16"), ("zero0", "fp32")]


@pytest.mark.timeout(300)
def test_a_resumed_run_has_exactly_the_losses_of_one_never_stopped(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for stage, precision in CASES:
        whole = make_run(f"whole-{stage}-{precision}", train={"precision": precision})
        parts = make_run(f"parts-{stage}-{precision}", train={"precision": precision})
        file = str(zero_file(stage))
        plan.append({"run": str(whole), "deepspeed": file})
        # Stopped before, at, and after an evaluation; the third start ends the run, the fourth has nothing to do.
        for stop in (["--train.stop_at_step=3"], ["--train.stop_at_step=8"], [], []):
            plan.append({"run": str(parts), "deepspeed": file, "options": stop})
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    run_ranks(TRAIN_MANY, [str(tmp_path / "plan.json")], ranks=2)
    for stage, precision in CASES:
        whole, parts = (tmp_path / "runs" / f"{kind}-{stage}-{precision}" for kind in ("whole", "parts"))
        assert losses_of(parts) == losses_of(whole), (stage, precision)
        keys = ("step", "set", "loss", "bits_per_character")
        found, wanted = ([[line[k] for k in keys] for line in metrics_of(f, "evaluate")] for f in (parts, whole))
        assert found == wanted, (stage, precision)
        assert [line[0] for line in wanted] == [0, 4, 8, 12]
        saved = sorted(path.name for path in (parts / "checkpoints").iterdir())
        assert saved == ["step_00000003", "step_00000008", "step_00000012"]
