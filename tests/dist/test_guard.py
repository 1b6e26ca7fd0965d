"""A step that must not change the weights does not, on any rank, and is named: with two real ranks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import losses_of, metrics_of, train_all

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


def test_not_a_number_in_one_ranks_gradients_is_named_and_skipped_on_all_ranks_in_every_stage_and_precision(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for stage, precision in STAGES:
        train_options = {"steps": STEPS, "precision": precision}
        run = make_run(f"{stage}-{precision}", train=train_options, evaluate={"sets": {}}, guard={"non_finite": "skip"})
        plan.append({"run": str(run), "deepspeed": str(zero_file(stage)), "break": NAN})
    train_all(tmp_path, plan)
    for stage, precision in STAGES:
        name = f"{stage}-{precision}"
        for rank in (0, 1):
            found = updates(tmp_path, name, rank)
            assert [one["call"] for one in found] == ["update"] * 2 + ["skip"] + ["update"] * 3, name
            # A first step at rate 0 of the warm-up may leave weights as they are; the skipped one must.
            assert found[2]["same"], (name, rank)
            assert not any(one["same"] for one in found[3:]), (name, rank)
        folder = tmp_path / "runs" / name
        assert [line["step"] for line in metrics_of(folder)] == [1, 2, 4, 5, 6]
        [line] = metrics_of(folder, "guard")
        assert (line["step"], line["found"], line["action"]) == (3, "gradients_not_finite", "skip")
        assert (line["ranks"], line["parameters"]) == ([1], ["layers.1.mlp.down_proj.weight"])
        assert list(line["documents"]) == ["1"]
        assert line["documents"]["1"]
        manifest = json.loads((folder / "checkpoints" / f"step_{STEPS:08d}" / "manifest.json").read_text())
        assert manifest["guard"]["skipped"] == [[3, 3]]


USUAL: dict[str, dict[str, Any]] = {
    "train": {"steps": 8, "precision": "fp32"},
    "evaluate": {"sets": {}},
    "checkpoint": {"interval_steps": 4},
}
SPIKES = {"warmup_steps": 3, "window": 8, "gradient_spike": "skip", "gradient_factor": 6.0}
PlanOf = Callable[..., dict[str, Any]]


@pytest.fixture
def plan_of(make_run: Callable[..., Path], zero_file: Callable[..., Path]) -> PlanOf:
    """One training of a plan under a guard; more: what train_many takes, or a section of the run."""

    def plan(name: str, stage: str, guard: dict[str, Any], precision: str = "fp32", **more: Any) -> dict[str, Any]:
        train = {**USUAL["train"], "precision": precision}
        run = make_run(name, guard=guard, **{**USUAL, "train": train})
        return {"run": str(run), "deepspeed": str(zero_file(stage)), **more}

    return plan


def broken(steps: list[int], value: float = float("nan")) -> dict[str, Any]:
    return {"break": {"rank": 1, "steps": steps, "value": value}}


def test_the_guard_changes_no_loss_when_nothing_is_wrong(tmp_path: Path, plan_of: PlanOf) -> None:
    cases = [("zero3", "bf16"), ("zero1", "bf16"), ("zero2", "fp32"), ("zero0", "fp32")]
    guarded = {"non_finite": "skip", "loss_spike": "skip"}
    plan = []
    for stage, precision in cases:
        plan.append(plan_of(f"bare-{stage}-{precision}", stage, {"stall_seconds": 0}, precision, bare=True))
        plan.append(plan_of(f"guarded-{stage}-{precision}", stage, guarded, precision))
    train_all(tmp_path, plan)
    runs = tmp_path / "runs"
    for stage, precision in cases:
        assert losses_of(runs / f"guarded-{stage}-{precision}") == losses_of(runs / f"bare-{stage}-{precision}")


def test_a_roll_back_goes_on_behind_the_step_from_the_newest_checkpoint(tmp_path: Path, plan_of: PlanOf) -> None:
    back = plan_of("back", "zero3", {"non_finite": "roll_back"}, **broken([6], float("inf")))
    train_all(tmp_path, [back, plan_of("skips", "zero3", {"non_finite": "skip"}, **broken([5, 6]))])
    runs = tmp_path / "runs"
    # The checkpoint of step 4 and no batch of steps 5 and 6: what a run has that skipped these two.
    after = {name: {line["step"]: line["loss"] for line in metrics_of(runs / name)} for name in ("back", "skips")}
    assert sorted(after["back"]) == [1, 2, 3, 4, 5, 7, 8]
    assert [after["back"][step] for step in (1, 2, 3, 4, 7, 8)] == list(after["skips"].values())
    manifest = json.loads((runs / "back" / "checkpoints" / "step_00000008" / "manifest.json").read_text())
    assert (manifest["guard"]["skipped"], manifest["guard"]["roll_backs"]) == ([[5, 6]], 1)


def test_a_run_that_may_not_go_on_ends_on_every_rank_with_the_reason(tmp_path: Path, plan_of: PlanOf) -> None:
    skips = {"non_finite": "skip", "skips_in_a_row": 2}
    ends = {"refused": "TrainingError"}
    train_all(tmp_path, [
        plan_of("nowhere", "zero1", {"non_finite": "roll_back"}, **broken([2]), **ends),
        plan_of("limit", "zero1", skips, **broken([2, 3, 4]), **ends),
        plan_of("stop", "zero1", {}, **broken([2]), **ends),
    ])  # fmt: skip
    for rank in (0, 1):
        said = {n: (tmp_path / f"{n}.rank{rank}.TrainingError").read_text() for n in ("nowhere", "limit", "stop")}
        assert "no checkpoint yet" in said["nowhere"]
        assert "guard.skips_in_a_row=2 is used up" in said["limit"]
        assert "step 2: the gradients are not finite on rank 1" in said["stop"]
        assert updates(tmp_path, "stop", rank)[-1] == {"step": 2, "call": "skip", "same": True}


def test_a_run_that_was_stopped_finds_the_same_spike_by_the_same_limit(tmp_path: Path, plan_of: PlanOf) -> None:
    parts = plan_of("parts", "zero3", SPIKES)
    train_all(tmp_path, [
        plan_of("spike", "zero3", SPIKES, **broken([6], 1e3)),
        {**parts, "options": ["--train.stop_at_step=5"]},
        {**parts, **broken([1], 1e3)},
    ])  # fmt: skip
    runs = tmp_path / "runs"
    [line] = metrics_of(runs / "spike", "guard")
    assert (line["step"], line["found"], line["action"], line["ranks"]) == (6, "gradient_spike", "skip", [1])
    assert metrics_of(runs / "parts", "guard") == [line]
    assert metrics_of(runs / "parts")[-1]["loss"] == metrics_of(runs / "spike")[-1]["loss"]


def test_a_list_of_skipped_documents_may_grow_and_each_checkpoint_says_what_its_start_skipped(
    tmp_path: Path, plan_of: PlanOf
) -> None:
    longer = plan_of("longer", "zero3", {})
    train_all(tmp_path, [
        {**longer, "options": ["--train.stop_at_step=5", "--data.skip_documents=wiki-0"]},
        {**longer, "options": ["--data.skip_documents", "wiki-0", "wiki-66"]},
    ])  # fmt: skip
    folder = tmp_path / "runs" / "longer"
    saved = [json.loads(path.read_text()) for path in sorted(folder.glob("checkpoints/step_*/manifest.json"))]
    recorded = [(manifest["step"], manifest["task"]["skipped_documents"]) for manifest in saved]
    assert recorded == [(4, ["wiki-0"]), (5, ["wiki-0"]), (8, ["wiki-0", "wiki-66"])]
    assert len(losses_of(folder)) == 8
