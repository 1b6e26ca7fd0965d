"""The losses of short trainings of every kind, as they were recorded: a change of the code alone changes no digit.

    RECORD_GOLDEN=1 python -m pytest tests/dist/test_golden.py     # writes the file anew, where numbers were to change

On the kind of machine and with the torch that the file was recorded with, losses are equal to the last digit; elsewhere
other kernels round otherwise, and losses are near.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from megadec.export.read.megadec import to_megadec
from tests.dist.test_seq2seq import MODELS, run_file
from tests.support.processes import TRAIN_MANY, losses_of, run_ranks
from tests.support.sources import random_source
from tests.support.titles import write_titles

GOLDEN = Path(__file__).parent / "golden.json"
STEPS = 6
STAGES = {"fp32": ("zero0", "zero1", "zero2", "zero3"), "bf16": ("zero1", "zero2", "zero3")}
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}

Case = tuple[str, dict[str, Any]]


def machine() -> dict[str, str]:
    """What rounding depends on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else "unknown",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        "torch": torch.__version__,
    }


def fine_tuning(folder: Path, pretrained: Path, method: str) -> Path:
    run = {
        "name": method,
        "output_folder": str(folder / "runs"),
        "method": method,
        "model": {"path": str(pretrained)},
        "data": {
            "train": str(folder / "titles/train.txt"),
            "dev": str(folder / "titles/dev.txt"),
            "sequence_length": 48,
        },
        "lora": {"rank": 3, "alpha": 6.0},
        "train": {"steps": STEPS, "global_batch_size": 4, "micro_batch_size": 1, "precision": "fp32"},
        "optimizer": {"learning_rate": 0.01},
        "evaluate": {"interval_steps": STEPS},
        "checkpoint": {"interval_steps": 0},
        "metrics": {"tensorboard": False},
    }
    path = folder / f"{method}.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    return path


@pytest.fixture
def losses(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], tiny_tokenizer_path: Path
) -> dict[str, list[float]]:
    """Of every training, by its name; `resumed` begins on two ranks and goes on on one."""
    write_titles(tmp_path / "titles")
    to_megadec(random_source(tiny_tokenizer_path, hidden_size=33, vocabulary_size=601), tmp_path / "pretrained")
    plans: dict[int, list[dict[str, Any]]] = {2: [], 1: []}

    def pretraining(name: str, **train: Any) -> str:
        return str(make_run(name, train={"steps": STEPS, **train}, evaluate={"sets": {}}))

    for ranks, plan in plans.items():
        for precision, stages in STAGES.items():
            for stage in stages:
                run = pretraining(f"pretrain-{precision}-{stage}-{ranks}", precision=precision)
                plan.append({"run": run, "deepspeed": str(zero_file(stage))})
    for method in ("full", "lora"):
        run = str(fine_tuning(tmp_path, tmp_path / "pretrained", method))
        plans[2].append({"run": run, "deepspeed": str(zero_file("zero2")), "kind": "finetune"})
    for name in ("transformer", "gru"):
        run = str(run_file(tmp_path, name, MODELS[name], tiny_tokenizer_path))
        plans[2].append({"run": run, "deepspeed": str(zero_file("zero3")), "kind": "seq2seq"})
    resumed = {"run": pretraining("resumed"), "deepspeed": str(zero_file("zero3"))}
    plans[2].append({**resumed, "options": ["--train.stop_at_step=3"]})
    plans[1].append(resumed)
    for ranks, plan in plans.items():
        file = tmp_path / f"plan-{ranks}.json"
        file.write_text(json.dumps(plan))
        run_ranks(TRAIN_MANY, [str(file)], ranks)  # of their own: what other tests trained before changes no digit
    return {folder.name: losses_of(folder) for folder in sorted((tmp_path / "runs").iterdir())}


def test_no_loss_differs_from_the_recorded_one(losses: dict[str, list[float]]) -> None:
    if os.environ.get("RECORD_GOLDEN"):
        GOLDEN.write_text(json.dumps({"machine": machine(), "losses": losses}, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert losses.keys() == golden["losses"].keys()
    for name, wanted in golden["losses"].items():
        if machine() == golden["machine"]:
            assert losses[name] == wanted, name
        else:
            assert losses[name] == pytest.approx(wanted, rel=TOLERANCE["bf16" if "bf16" in name else "fp32"]), name
