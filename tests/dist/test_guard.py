"""A step that must not change the weights does not, on any rank, and is named: with two real ranks."""

import json
from typing import Any

from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

STAGES = [
    ("zero3", "bf16"),
    ("zero3", "fp32"),
    ("zero2", "bf16"),
    ("zero1", "bf16"),
    ("zero1", "fp32"),
    ("zero0", "fp32"),
]
STEPS = 6
SPIKES = {"warmup_steps": 3, "window": 8, "gradient_spike": "skip", "gradient_factor": 6.0}


def broken(steps: list[int], value: float = float("nan")) -> dict[str, Any]:
    return {"break": {"rank": 1, "steps": steps, "value": value}}


def updates(runs: TinyRuns, name: str, rank: int) -> list[dict[str, Any]]:
    return json.loads((runs.folder / f"{name}.rank{rank}.updates.json").read_text())  # type: ignore[no-any-return]


def test_not_a_number_in_one_ranks_gradients_is_named_and_skipped_on_all_ranks_in_every_stage_and_precision(
    runs: TinyRuns,
) -> None:
    plan = []
    for stage, precision in STAGES:
        sections = {"train": {"steps": STEPS, "precision": precision}, "guard": {"non_finite": "skip"}}
        training = runs.training(f"{stage}-{precision}", stage, evaluate=NO_EVALUATION, **sections)
        plan.append({**training, **broken([3])})
    runs.train(*plan)
    for name in map("-".join, STAGES):
        for rank in (0, 1):
            found = updates(runs, name, rank)
            assert [one["call"] for one in found] == ["update"] * 2 + ["skip"] + ["update"] * 3, name
            # A first step at rate 0 of the warm-up may leave weights as they are; the skipped one must.
            assert found[2]["same"], (name, rank)
            assert not any(one["same"] for one in found[3:]), (name, rank)
        assert [line["step"] for line in runs.metrics(name)] == [1, 2, 4, 5, 6]
        [line] = runs.metrics(name, "guard")
        assert (line["step"], line["found"], line["action"]) == (3, "gradients_not_finite", "skip")
        assert (line["ranks"], line["parameters"]) == ([1], ["layers.1.mlp.down_proj.weight"])
        assert list(line["documents"]) == ["1"]
        assert line["documents"]["1"]
        assert runs.manifest(name, STEPS)["guard"]["skipped"] == [[3, 3]]


def guarded(
    runs: TinyRuns, name: str, stage: str, guard: dict[str, Any], *options: str, precision: str = "fp32", **more: Any
) -> dict[str, Any]:
    """One training of a plan under a guard; more: what else train_many takes."""
    train = {"steps": 8, "precision": precision}
    sections = {"train": train, "evaluate": NO_EVALUATION, "checkpoint": {"interval_steps": 4}, "guard": guard}
    return {**runs.training(name, stage, *options, **sections), **more}


def test_the_guard_changes_no_loss_when_nothing_is_wrong(runs: TinyRuns) -> None:
    skips = {"non_finite": "skip", "loss_spike": "skip"}
    cases = [("zero3", "bf16"), ("zero1", "bf16"), ("zero2", "fp32"), ("zero0", "fp32")]
    plan = []
    for stage, precision in cases:
        name = f"{stage}-{precision}"
        plan.append(guarded(runs, f"bare-{name}", stage, {"stall_seconds": 0}, precision=precision, bare=True))
        plan.append(guarded(runs, f"guarded-{name}", stage, skips, precision=precision))
    runs.train(*plan)
    for name in map("-".join, cases):
        assert runs.losses(f"guarded-{name}") == runs.losses(f"bare-{name}")


def test_a_roll_back_goes_on_behind_the_step_from_the_newest_checkpoint(runs: TinyRuns) -> None:
    runs.train(
        guarded(runs, "back", "zero3", {"non_finite": "roll_back"}, **broken([6], float("inf"))),
        guarded(runs, "skips", "zero3", {"non_finite": "skip"}, **broken([5, 6])),
    )
    # The checkpoint of step 4 and no batch of steps 5 and 6: what a run has that skipped these two.
    back, skips = ({line["step"]: line["loss"] for line in runs.metrics(name)} for name in ("back", "skips"))
    assert sorted(back) == [1, 2, 3, 4, 5, 7, 8]
    assert [back[step] for step in (1, 2, 3, 4, 7, 8)] == list(skips.values())
    guard = runs.manifest("back", 8)["guard"]
    assert (guard["skipped"], guard["roll_backs"]) == ([[5, 6]], 1)


def test_a_guard_that_stops_ends_every_rank_with_the_reason_and_the_weights_as_they_were(runs: TinyRuns) -> None:
    runs.train(guarded(runs, "stop", "zero1", {}, **broken([2]), refused="TrainingError"))
    for rank, said in zip((0, 1), runs.refusals("stop", "TrainingError"), strict=True):
        assert "step 2: the gradients are not finite on rank 1" in said
        assert updates(runs, "stop", rank)[-1] == {"step": 2, "call": "skip", "same": True}


def test_a_run_that_was_stopped_finds_the_same_spike_by_the_same_limit(runs: TinyRuns) -> None:
    runs.train(
        guarded(runs, "spike", "zero3", SPIKES, **broken([6], 1e3)),
        guarded(runs, "parts", "zero3", SPIKES, "--train.stop_at_step=5"),
        guarded(runs, "parts", "zero3", SPIKES, **broken([1], 1e3)),
    )
    [line] = runs.metrics("spike", "guard")
    assert (line["step"], line["found"], line["action"], line["ranks"]) == (6, "gradient_spike", "skip", [1])
    assert runs.metrics("parts", "guard") == [line]
    assert runs.metrics("parts")[-1]["loss"] == runs.metrics("spike")[-1]["loss"]
