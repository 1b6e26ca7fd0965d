"""Fine-tuning on two ranks: plain torch's losses, and what is frozen stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from megadec.common.config import from_yaml
from megadec.common.errors import InputError
from megadec.engine.early_stopping import read_best
from megadec.engine.runs.common import Job
from megadec.engine.schedule import learning_rate_factor
from megadec.engine.zero.optimizer import build_optimizer
from megadec.engine.zero.state_files import StateFiles
from megadec.export.read.megadec import to_megadec
from megadec.export.read.model import open_model
from megadec.finetune.adapt import METHODS, Method, trains
from megadec.finetune.classify import load_classifier
from megadec.finetune.commands import finetune
from megadec.finetune.examples import read_labelled
from megadec.finetune.task import FineTuneRun, open_finetune
from tests.support import PROJECT
from tests.support.processes import DEADLINE_SECONDS, deepspeed, losses_of, metrics_of, train_all
from tests.support.sources import random_source
from tests.support.titles import write_titles

FINETUNE = PROJECT / "launch" / "finetune.py"
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
    ("lora-zero2-stopped", "lora", "zero2", "none", 2),
    ("lora-zero3-stopped", "lora", "zero3", "none", 2),
    ("frozen-zero3-stopped", "frozen", "zero3", "none", 4),
]


@pytest.fixture
def write_run(tmp_path: Path, tiny_tokenizer_path: Path) -> Callable[..., Path]:
    """Writes a tiny run's YAML with some sections changed; the pretrained decoder and the titles are there."""
    write_titles(tmp_path / "titles")
    to_megadec(random_source(tiny_tokenizer_path, hidden_size=33, vocabulary_size=601), tmp_path / "pretrained")

    def write(name: str, **sections: Any) -> Path:
        run: dict[str, Any] = {
            "name": name,
            "output_folder": str(tmp_path / "runs"),
            "model": {"path": str(tmp_path / "pretrained")},
            "data": {
                "train": str(tmp_path / "titles" / "train.txt"),
                "dev": str(tmp_path / "titles" / "dev.txt"),
                "sequence_length": 48,
            },
            "loss": {"class_weights": "balanced", "weights": {"体育": 2.0}, "label_smoothing": 0.1},
            "lora": {"rank": 3, "alpha": 6.0},
            "train": {"steps": STEPS, "global_batch_size": 4, "micro_batch_size": 1, "precision": "fp32"},
            "optimizer": {"learning_rate": 0.01, "max_grad_norm": 0.5},
            "schedule": {"warmup_steps": 2},
            "evaluate": {"interval_steps": 3, "micro_batch_size": 2},
            "early_stopping": {"metric": "dev/accuracy"},
            "checkpoint": {"interval_steps": 0},
            "metrics": {"tensorboard": False},
        }
        for key, value in sections.items():
            run[key] = {**run.get(key, {}), **value} if isinstance(value, dict) else value
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(run, allow_unicode=True), encoding="utf-8")
        return path

    return write


def plain_losses(job: Job) -> list[float]:
    """The same run in plain torch: no DeepSpeed, no engine, one process, the whole step as one batch."""
    model, run, task = job.task.build(), job.run, job.task
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(task.first_value(name))
    optimizer = build_optimizer(model.named_parameters(), run.optimizer)
    losses = []
    for step in range(run.train.steps):
        [batch] = task.stream.batch(step, 0, 1, None)
        mean = model(batch.ids_BS, **batch.model_arguments()) / batch.valid_tokens
        optimizer.zero_grad()
        mean.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.optimizer.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = run.optimizer.learning_rate * learning_rate_factor(run.schedule, step, run.train.steps)
        optimizer.step()
        losses.append(float(mean.detach()))
    return losses


def test_every_method_and_stage_trains_as_plain_torch_and_leaves_the_frozen_as_it_was(
    tmp_path: Path, write_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    plan = []
    for name, method, stage, recompute, stop in CASES:
        precision = {"precision": "bf16"} if "bf16" in name else {}
        file = write_run(name, method=method, model={"execution": {"recompute": {"mode": recompute}}}, train=precision)
        training = {"kind": "finetune", "run": str(file), "deepspeed": str(zero_file(stage))}
        if stop is not None:
            plan.append({**training, "options": ["--train.stop_at_step", str(stop)]})
        plan.append(training)
    for source, stage in (("lora-zero3-stopped", "zero2"), ("lora-zero2-stopped", "zero3")):
        checkpoint = tmp_path / "runs" / source / "checkpoints" / "step_00000002"
        name = f"{source}-{stage}"
        options = [f"--checkpoint.resume={checkpoint}", f"--name={name}"]
        file = write_run(name, method="lora", model={"execution": {"recompute": {"mode": "none"}}})
        plan.append({"kind": "finetune", "run": str(file), "deepspeed": str(zero_file(stage)), "options": options})
    # What is frozen was kept in bf16, and is fp32 in the run that goes on.
    checkpoint = tmp_path / "runs" / "lora-zero3-bf16" / "checkpoints" / f"step_{STEPS:08d}"
    file = write_run("finer", method="lora", train={"steps": STEPS + 2})
    options = [f"--checkpoint.resume={checkpoint}"]
    plan.append({"kind": "finetune", "run": str(file), "deepspeed": str(zero_file("zero1")), "options": options})
    train_all(tmp_path, plan)
    losses = {name: losses_of(tmp_path / "runs" / name) for name, *_ in CASES}
    for name, method, stage, *_ in CASES:
        job = open_finetune(from_yaml(FineTuneRun, tmp_path / f"{name}.yaml"), zero_file(stage))
        assert losses[name] == pytest.approx(plain_losses(job), rel=1e-2 if "bf16" in name else 1e-5), name
        assert losses[name][-1] < losses[name][0] - 0.05, (
            "something must be learned for the comparison to mean something"
        )
        check_checkpoint(job, tmp_path / "runs" / name, method)
        if "bf16" not in name:
            check_best(job, tmp_path / "runs" / name)
    for name in ("lora-zero2", "lora-zero3", "frozen-zero3"):
        assert losses[f"{name}-stopped"] == losses[name], "a run that was stopped is one that was not"
    for name in ("lora-zero3-stopped-zero2", "lora-zero2-stopped-zero3"):
        went_on = [line["loss"] for line in metrics_of(tmp_path / "runs" / name)]
        assert went_on == pytest.approx(losses["lora-zero3"][2:], rel=1e-5), name
    assert [line["step"] for line in metrics_of(tmp_path / "runs" / "finer")] == [STEPS + 1, STEPS + 2]


def check_checkpoint(job: Job, folder: Path, method: Method) -> None:
    """What is frozen is bit-equal to its first value, what is trained is not; the names and sizes are all there."""
    files = StateFiles(folder / f"checkpoints/step_{STEPS:08d}")
    assert files.shapes == dict(job.task.sizes)
    held = torch.bfloat16 if job.run.train.precision == "bf16" else torch.float32
    for name in files.shapes:
        first = job.task.first_value(name).to(held).float()
        assert torch.equal(files.read(name), first) != trains(method, name), name


def check_best(job: Job, folder: Path) -> None:
    """The run opens as the classifier that was measured best, and classifies as it did then."""
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


def test_the_command_fine_tunes_or_says_what_is_wrong_with_the_texts(
    tmp_path: Path, write_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    """launch/finetune.py with an option behind the file."""
    file, zero = write_run("titles"), zero_file("zero2")
    arguments = ["--deepspeed", str(zero), "--config", str(file), "--method", "lora"]
    log = tmp_path / "log"
    with deepspeed(arguments, 2, log, FINETUNE) as process:
        assert process.wait(timeout=DEADLINE_SECONDS) == 0, log.read_text()[-4000:]
    assert load_classifier(tmp_path / "runs" / "titles").labels == ["体育", "财经", "科技"]
    (tmp_path / "titles" / "dev.txt").write_text("木匠\t3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"dev\.txt: line 1: label 3"):
        finetune(arguments)
