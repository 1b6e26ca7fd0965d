"""The losses of short trainings of every kind, as they were recorded: a change of the code alone changes no digit.

    RECORD_GOLDEN=1 python -m pytest tests/dist/test_golden.py     # writes the file anew, where numbers were to change

On the kind of machine and with the torch that the file was recorded with, losses are equal to the last digit; elsewhere
other kernels round otherwise, and losses are near.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.dist.test_seq2seq import MODELS, pairs_run
from tests.support.processes import losses_of
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns
from tests.support.titles import fine_tuning

GOLDEN = Path(__file__).parent / "golden.json"
STEPS = 6
STAGES = {"fp32": ("zero0", "zero1", "zero2", "zero3"), "bf16": ("zero1", "zero2", "zero3")}
TOLERANCE = {"fp32": 1e-4, "bf16": 2e-2}


def machine() -> dict[str, str]:
    """What rounding depends on."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0].partition(":")[2].strip() if names else "unknown",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": os.environ.get("ONEDNN_MAX_CPU_ISA", "all"),
        "torch": torch.__version__,
    }


@pytest.fixture
def losses(runs: TinyRuns) -> dict[str, list[float]]:
    """Of every training, by its name; `resumed` begins on two ranks and goes on on one."""
    plans: dict[int, list[dict[str, Any]]] = {2: [], 1: []}

    def pretraining(name: str, stage: str, *options: str, precision: str = "fp32") -> dict[str, Any]:
        train = {"steps": STEPS, "precision": precision}
        return runs.training(name, stage, *options, train=train, evaluate=NO_EVALUATION)

    for ranks, plan in plans.items():
        for precision, stages in STAGES.items():
            for stage in stages:
                plan.append(pretraining(f"pretrain-{precision}-{stage}-{ranks}", stage, precision=precision))
    write = fine_tuning(runs.folder, runs.tokenizer)
    for method in ("full", "lora"):
        usual = {"loss": None, "schedule": None, "early_stopping": None, "optimizer": {"max_grad_norm": 1.0}}
        run = write(method, method=method, **usual)
        plans[2].append({"run": str(run), "deepspeed": str(runs.zero("zero2")), "kind": "finetune"})
    for name in ("transformer", "gru"):
        run = pairs_run(runs.folder, name, MODELS[name], runs.tokenizer)
        plans[2].append({"run": str(run), "deepspeed": str(runs.zero("zero3")), "kind": "seq2seq"})
    plans[2].append(pretraining("resumed", "zero3", "--train.stop_at_step=3"))
    plans[1].append(pretraining("resumed", "zero3"))
    for ranks, plan in plans.items():
        runs.train(*plan, ranks=ranks)
    return {folder.name: losses_of(folder) for folder in sorted((runs.folder / "runs").iterdir())}


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
