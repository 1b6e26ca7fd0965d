"""Fine-tuning on two ranks: plain torch's losses, and what is frozen stays as it was."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.config import from_yaml
from megadec.engine.early_stopping import read_best
from megadec.engine.runs.common import Job
from megadec.engine.zero.state_files import StateFiles
from megadec.export.read.open_model import open_model
from megadec.finetune.classify import load_classifier
from megadec.finetune.examples import read_labelled
from megadec.finetune.lora import METHODS, Method, trains
from megadec.finetune.task import FineTuneRun, open_finetune
from tests.support.decoders import initialize
from tests.support.foreign_models import READ, make_foreign
from tests.support.plain_training import train_plainly
from tests.support.processes import metrics_of
from tests.support.tiny_runs import TinyRuns
from tests.support.titles import fine_tuning

STEPS = 6
# (name, method, ZeRO, how activations are recomputed, the step to stop at once). Sizes are odd: ranks do not share them
# evenly.
CASES = [
    *((f"{method}-zero2", method, "zero2", "none", None) for method in METHODS),
    ("full-zero3", "full", "zero3", "selective", None),
    ("frozen-zero3", "frozen", "zero3", "full", None),
    ("lora-zero3", "lora", "zero3", "full", None),
    ("lora-zero3-selective", "lora", "zero3", "selective", None),
    ("lora-zero1", "lora", "zero1", "none", None),
    ("lora-zero3-bf16", "lora", "zero3", "none", None),
    ("lora-zero3-foreign", "lora", "zero3", "none", None),
    ("lora-zero2-stopped", "lora", "zero2", "none", 2),
    ("lora-zero3-stopped", "lora", "zero3", "none", 2),
    ("frozen-zero3-stopped", "frozen", "zero3", "none", 4),
]


def test_every_method_and_stage_trains_as_plain_torch_and_leaves_the_frozen_as_it_was(runs: TinyRuns) -> None:
    write = fine_tuning(runs.folder, runs.tokenizer)
    moved = shutil.copytree(runs.folder / "pretrained", runs.folder / "moved")

    def training(name: str, stage: str, *options: str, **sections: Any) -> dict[str, Any]:
        file = str(write(name, **sections))
        return {"kind": "finetune", "run": file, "deepspeed": str(runs.zero(stage)), "options": options}

    plan = []
    for name, method, stage, recompute, stop in CASES:
        train = {"precision": "bf16"} if "bf16" in name else {}
        model: dict[str, Any] = {"execution": {"recompute": {"mode": recompute}}}
        if "foreign" in name:  # biases and scaled RoPE, from other tools
            foreign = replace(READ["llama-yarn-old"], config={"attention_bias": True})
            model["path"] = str(make_foreign(runs.folder / "foreign", foreign, runs.tokenizer))
        sections = {"method": method, "model": model, "train": train}
        if stop is not None:
            plan.append(training(name, stage, f"--train.stop_at_step={stop}", **sections))
        # The model may lie elsewhere when the run goes on.
        elsewhere = [] if stop is None else [f"--model.path={moved}"]
        plan.append(training(name, stage, *elsewhere, **sections))
    for source, stage in (("lora-zero3-stopped", "zero2"), ("lora-zero2-stopped", "zero3")):
        resume = f"--checkpoint.resume={runs.checkpoint(source, 2)}"
        plan.append(training(f"{source}-{stage}", stage, resume, method="lora"))
    # What is frozen was kept in bf16, and is fp32 in the run that goes on.
    resume = f"--checkpoint.resume={runs.checkpoint('lora-zero3-bf16', STEPS)}"
    plan.append(training("finer", "zero1", resume, method="lora", train={"steps": STEPS + 2}))
    said = runs.train(*plan)
    losses = {name: runs.losses(name) for name, *_ in CASES}
    for name, method, stage, *_ in CASES:
        job = open_finetune(from_yaml(FineTuneRun, runs.folder / f"{name}.yaml"), runs.zero(stage))
        assert losses[name] == pytest.approx(plain_losses(job), rel=1e-2 if "bf16" in name else 1e-5), name
        assert losses[name][-1] < losses[name][0] - 0.05, "the comparison means something if something is learned"
        check_checkpoint(job, runs.of(name), method)
        if "bf16" not in name:
            step, value = check_best(job, runs.of(name))
            best = f"dev/accuracy was best at step {step}: {value:.4f} ({runs.checkpoint(name, step)})"
            assert f"saved in {runs.of(name)}/checkpoints; {best}" in said
    for name in ("lora-zero2", "lora-zero3", "frozen-zero3"):
        assert losses[f"{name}-stopped"] == losses[name], "a run that was stopped is one that was not"
    for name in ("lora-zero3-stopped-zero2", "lora-zero2-stopped-zero3"):
        went_on = [line["loss"] for line in runs.metrics(name)]
        assert went_on == pytest.approx(losses["lora-zero3"][2:], rel=1e-5), name
    assert [line["step"] for line in runs.metrics("finer")] == [STEPS + 1, STEPS + 2]


def plain_losses(job: Job) -> list[float]:
    """The same run in plain torch."""
    model, run = job.task.build(), job.run
    initialize(model, run.seed, lambda shape, name, size, seed: job.task.first_value(name))
    return train_plainly(model, job.task.stream, run.train.steps, run.optimizer, run.schedule)


def check_checkpoint(job: Job, folder: Path, method: Method) -> None:
    """What is frozen is bit-equal to its first value, what is trained is not; the names and sizes are all there."""
    files = StateFiles(folder / f"checkpoints/step_{STEPS:08d}")
    assert files.shapes == dict(job.task.sizes)
    held = torch.bfloat16 if job.run.train.precision == "bf16" else torch.float32
    for name in files.shapes:
        first = job.task.first_value(name).to(held).float()
        assert torch.equal(files.read(name), first) != trains(method, name), name


def check_best(job: Job, folder: Path) -> tuple[int, float]:
    """The run opens as the classifier that was measured best, and classifies as it did then: step and accuracy."""
    best = read_best(folder)
    assert best is not None
    assert isinstance(job.run, FineTuneRun)
    source = open_model(folder)
    assert (source.step, source.task["labels"]) == (best["step"], ["体育", "财经", "科技"])
    assert not any("lora" in name for name in source.names())
    classifier = load_classifier(folder)
    dev = list(read_labelled(Path(job.run.data.dev), job.run.data))
    said = [max(shares, key=shares.__getitem__) for shares in classifier.classify([one.text for one in dev])]
    right = [answer == one.label for answer, one in zip(said, dev, strict=True)]
    assert sum(right) / len(right) == best["value"]
    [measured] = [line for line in metrics_of(folder, "evaluate") if line["step"] == best["step"]]
    assert measured["accuracy"] == best["value"]
    return best["step"], best["value"]
