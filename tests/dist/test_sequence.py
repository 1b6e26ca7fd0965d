"""Rows cut along the sequence over several ranks are the same rows: equal losses, evaluations and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import TRAIN_MANY, deepspeed, losses_of, metrics_of, run_ranks

TRAIN = {"steps": 6, "global_batch_size": 4, "micro_batch_size": 2, "precision": "fp32"}
# Parts that cut documents, and documents that cut parts: a row is several documents, a document is several rows.
DATA = {"sequence_length": 64}
# As many query heads as ranks want, with more key-value heads than ranks, as many, and fewer.
MODELS: dict[str, dict[str, Any]] = {
    "more": {"heads": 4, "kv_heads": 4, "head_size": 8},
    "equal": {"heads": 4, "kv_heads": 2, "head_size": 8},
    "fewer": {"heads": 4, "kv_heads": 1, "head_size": 8},
}
SHARED = ("more", "equal", "fewer", "zero1", "full", "selective", "bf16", "resumed")
Make = Callable[..., Path]


def plan_of(make_run: Make, zero_file: Make, ranks: int, names: tuple[str, ...]) -> list[dict[str, Any]]:
    plan = []
    for name in names:
        model: dict[str, Any] = {"shape": MODELS.get(name, MODELS["fewer"])}
        if name in ("full", "selective"):
            model["execution"] = {"recompute": {"mode": name}}
        train = {**TRAIN, "sequence_parallel_size": ranks, "precision": "bf16" if name == "bf16" else "fp32"}
        evaluate = {"interval_steps": 3, "windows": 5, "micro_batch_size": 2}
        run = make_run(f"{name}-{ranks}", model=model, train=train, data=DATA, evaluate=evaluate)
        training = {"run": str(run), "deepspeed": str(zero_file("zero1" if name == "zero1" else "zero3"))}
        if name == "resumed" and ranks > 1:
            # With rows cut, then with whole rows, then cut again: what is saved does not know of it.
            for options in (["--train.stop_at_step=2"], ["--train.stop_at_step=4", "--train.sequence_parallel_size=1"]):
                plan.append({**training, "options": options})
        plan.append(training)
    return plan


def values_of(folder: Path) -> list[float]:
    """What a run told of training and evaluation, as one list of numbers."""
    lines = metrics_of(folder, "evaluate")
    assert [line["step"] for line in lines] == [0, 3, 6]
    measured = [line[key] for line in lines for key in ("loss", "evaluated_tokens", "evaluated_characters")]
    tokens = [float(line["tokens"]) for line in metrics_of(folder)]
    norms = [line["grad_norm"] for line in metrics_of(folder)]
    return [*losses_of(folder), *tokens, *norms, *measured]


def test_rows_that_two_ranks_share_have_the_losses_of_rows_on_one(
    tmp_path: Path, make_run: Make, zero_file: Make
) -> None:
    alone = (*MODELS, "bf16")
    (tmp_path / "one.json").write_text(json.dumps(plan_of(make_run, zero_file, 1, alone)))
    (tmp_path / "two.json").write_text(json.dumps(plan_of(make_run, zero_file, 2, SHARED)))
    log = tmp_path / "two.log"
    with deepspeed([str(tmp_path / "two.json")], 2, log, script=TRAIN_MANY) as launcher:
        run_ranks(TRAIN_MANY, [str(tmp_path / "one.json")], ranks=1)
        assert launcher.wait() == 0, log.read_text()[-4000:]
    for name in SHARED:
        reference = values_of(tmp_path / "runs" / f"{name if name in alone else 'fewer'}-1")
        found = values_of(tmp_path / "runs" / f"{name}-2")
        assert found == pytest.approx(reference, rel=2e-2 if name == "bf16" else 1e-5), name


@pytest.mark.slow
def test_two_groups_of_two_ranks_are_one_rank(tmp_path: Path, make_run: Make, zero_file: Make) -> None:
    for ranks, shared in ((1, 1), (4, 2)):
        plan = plan_of(make_run, zero_file, shared, ("fewer", "full"))
        (tmp_path / f"{ranks}.json").write_text(json.dumps(plan))
        run_ranks(TRAIN_MANY, [str(tmp_path / f"{ranks}.json")], ranks=ranks)
    for name in ("fewer", "full"):
        found, reference = (values_of(tmp_path / "runs" / f"{name}-{shared}") for shared in (2, 1))
        assert found == pytest.approx(reference, rel=1e-5), name


@pytest.mark.slow
def test_a_rank_that_shares_rows_needs_the_memory_of_its_part(
    tmp_path: Path, make_run: Make, zero_file: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is freed is given back at once, or the peak would be that of what the C library keeps.
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"):
        monkeypatch.setenv(name, "131072")
    peaks = {}
    for shared in (1, 2):
        run = make_run(
            f"long-{shared}",
            model={
                "shape": {"hidden_size": 256, "layers": 4, "heads": 4, "head_size": 64, "max_position_embeddings": 4096}
            },
            data={"sequence_length": 4096},
            # Two micro-steps of one row, of each rank or of both together.
            train={
                "steps": 1,
                "global_batch_size": 4 // shared,
                "micro_batch_size": 1,
                "sequence_parallel_size": shared,
            },
            evaluate={"sets": {}},
        )
        plan = tmp_path / f"long-{shared}.json"
        plan.write_text(json.dumps([{"run": str(run), "deepspeed": str(zero_file("zero3"))}]))
        run_ranks(TRAIN_MANY, [str(plan)], ranks=2)
        [line] = metrics_of(tmp_path / "runs" / f"long-{shared}")
        peaks[shared] = max(line["memory_bytes"])
    # Layers keep about ten float32 numbers a token for each hidden one, and half of the tokens are elsewhere; what is
    # exchanged takes some of it. Measured: 64 to 77 MB.
    assert peaks[1] - peaks[2] > 5 * 256 * 4 * 4 * 4096 // 2, peaks
