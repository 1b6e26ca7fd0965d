"""A run that was stopped and went on is the run that never stopped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import losses_of, metrics_of, train_all

CASES = [("zero3", "fp32"), ("zero3", "bf16"), ("zero2", "bf16"), ("zero1", "bf16"), ("zero0", "fp32")]


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
    train_all(tmp_path, plan)
    for stage, precision in CASES:
        whole, parts = (tmp_path / "runs" / f"{kind}-{stage}-{precision}" for kind in ("whole", "parts"))
        assert losses_of(parts) == losses_of(whole), (stage, precision)
        keys = ("step", "set", "loss", "bits_per_character")
        found, wanted = ([[line[k] for k in keys] for line in metrics_of(f, "evaluate")] for f in (parts, whole))
        assert found == wanted, (stage, precision)
        assert [line[0] for line in wanted] == [0, 4, 8, 12]
        saved = sorted(path.name for path in (parts / "checkpoints").iterdir())
        assert saved == ["step_00000003", "step_00000008", "step_00000012"]


def test_what_cannot_go_on_is_refused_and_what_diverges_stops_and_says_where(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    run, zero = str(make_run("refused", train={"steps": 4})), str(zero_file("zero3"))
    diverging = str(make_run("diverging", optimizer={"learning_rate": 1e30, "max_grad_norm": 0.0}))
    begun = {"run": run, "deepspeed": zero, "options": ["--train.stop_at_step=2"]}
    first = str(tmp_path / "runs" / "refused" / "checkpoints" / "step_00000002")
    plan = [
        begun,
        {**begun, "options": ["--optimizer.learning_rate=0.1"], "refused": "ConfigError"},
        {**begun, "options": []},
        {**begun, "options": [f"--checkpoint.resume={first}"], "refused": "CheckpointError"},
        # From a checkpoint that is named, another course may begin: here under another name, so the first run stays.
        {**begun, "options": [f"--checkpoint.resume={first}", "--name=branch", "--train.steps=3"]},
        {"run": diverging, "deepspeed": zero, "refused": "TrainingError"},
    ]
    train_all(tmp_path, plan)
    for rank in (0, 1):
        said = (tmp_path / f"refused.rank{rank}.ConfigError").read_text()
        assert "optimizer.learning_rate: 0.003 there, 0.1 here" in said
        assert "step_00000004 is newer" in (tmp_path / f"refused.rank{rank}.CheckpointError").read_text()
        said = (tmp_path / f"diverging.rank{rank}.TrainingError").read_text()
        assert re.match(r"step \d+.* not finite", said), said
        assert "rank" in said
    assert len(losses_of(tmp_path / "runs" / "refused")) == 4
    assert [line["step"] for line in metrics_of(tmp_path / "runs" / "branch")] == [3]
    assert not list((tmp_path / "runs" / "diverging" / "checkpoints").iterdir())


def test_an_evaluation_measures_every_token_and_character_and_is_the_same_for_any_number_of_ranks(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], tiny_shards: Path
) -> None:
    found = []
    for ranks in (1, 2):
        name = f"ranks{ranks}"
        evaluate = {"windows": 10**6, "micro_batch_size": 64}
        run = make_run(name, train={"steps": 1}, data={"sequence_length": 64}, evaluate=evaluate)
        train_all(tmp_path, [{"run": str(run), "deepspeed": str(zero_file("zero1"))}], ranks)
        found.append(metrics_of(tmp_path / "runs" / name, "evaluate"))
    index = json.loads((tiny_shards / "index.json").read_text())
    for line in found[0] + found[1]:
        # Every token but the first of each document is predicted.
        assert line["evaluated_tokens"] == index["tokens"] - index["documents"]
        assert line["evaluated_characters"] == index["characters"]
        nats = line["loss"] * line["evaluated_tokens"]
        assert line["bits_per_character"] == pytest.approx(nats / math.log(2) / index["characters"])
    assert [line["loss"] for line in found[0]] == pytest.approx([line["loss"] for line in found[1]], rel=1e-6)
