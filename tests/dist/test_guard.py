"""A step that must not change the weights does not, on any rank, and is named: with two real ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.dist.conftest import metrics_of, run_ranks

TRAIN_GUARDED = Path(__file__).parent / "train_guarded.py"
STAGES = [
    ("zero3", "bf16"),
    ("zero3", "fp32"),
    ("zero2", "bf16"),
    ("zero1", "bf16"),
    ("zero1", "fp32"),
    ("zero0", "fp32"),
]
STEPS = 6
NAN = {"rank": 1, "steps": [3], "value": float("nan")}


def updates(folder: Path, name: str, rank: int) -> list[dict[str, Any]]:
    return json.loads((folder / f"{name}.rank{rank}.updates.json").read_text())  # type: ignore[no-any-return]


def train(folder: Path, plan: list[dict[str, Any]]) -> None:
    (folder / "plan.json").write_text(json.dumps(plan))
    run_ranks(TRAIN_GUARDED, [str(folder / "plan.json")], ranks=2)


def test_not_a_number_in_one_ranks_gradients_is_named_and_skipped_on_all_ranks_in_every_stage_and_precision(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for stage, precision in STAGES:
        train_options = {"steps": STEPS, "precision": precision}
        run = make_run(f"{stage}-{precision}", train=train_options, evaluate={"sets": {}}, guard={"non_finite": "skip"})
        plan.append({"run": str(run), "deepspeed": str(zero_file(stage)), "break": NAN})
    train(tmp_path, plan)
    for stage, precision in STAGES:
        name = f"{stage}-{precision}"
        for rank in (0, 1):
            found = updates(tmp_path, name, rank)
            assert [one["call"] for one in found] == ["update"] * 2 + ["refuse"] + ["update"] * 3, name
            # A first step at rate 0 of the warm-up may leave weights as they are; the refused one must.
            assert found[2]["same"], (name, rank)
            assert not any(one["same"] for one in found[3:]), (name, rank)
        folder = tmp_path / "runs" / name
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 4, 5, 6]
        [line] = metrics_of(folder, "guard")
        assert (line["step"], line["found"], line["answer"]) == (3, "gradients_not_finite", "skip")
        assert (line["ranks"], line["parameters"]) == ([1], ["layers.1.mlp.down_proj.weight"])
        assert list(line["documents"]) == ["1"]
        assert line["documents"]["1"]
        manifest = json.loads((folder / "checkpoints" / f"step_{STEPS:08d}" / "manifest.json").read_text())
        assert manifest["guard"]["left_out"] == [[3, 3]]
