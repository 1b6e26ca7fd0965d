"""A checkpoint is not bound to the ranks and the ZeRO stage that wrote it, and what it does not prove is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megadec.common.files import sha256_of
from megadec.engine.zero.state_files import MOMENTS, WEIGHT, StateFiles
from tests.support.processes import metrics_of, train_all

SAVED, MORE = 3, 8
TRAIN = {"steps": SAVED + MORE, "global_batch_size": 12, "micro_batch_size": 1}
# Sizes that neither two, three nor four divide.
MODEL = {"shape": {"vocabulary_size": 601, "hidden_size": 34}}


def losses_after(folder: Path, step: int) -> list[float]:
    return [line["loss"] for line in metrics_of(folder) if line["step"] > step]


def check_same_state(gathered: Path, wanted: StateFiles) -> None:
    """Bit for bit: every weight and both moments of each."""
    found = load_file(gathered)
    assert found.keys() == {f"{part} {name}" for name in wanted.shapes for part in (WEIGHT, *MOMENTS)}
    for key, tensor in found.items():
        part, name = key.split()
        assert torch.equal(tensor.flatten(), wanted.read_range(name, part, 0, tensor.numel())), key


def test_a_zero_3_run_of_two_ranks_goes_on_at_one_three_and_four_and_at_stage_1(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    def make(name: str) -> str:
        return str(make_run(name, model=MODEL, train=TRAIN, evaluate={"sets": {}}))

    zero3, zero1, zero2, offload = (str(zero_file(name)) for name in ("zero3", "zero1", "zero2", "zero3_offload"))
    source = tmp_path / "runs" / "source" / "checkpoints" / f"step_{SAVED:08d}"

    def branch(name: str, file: str, checkpoint: Path = source, **more: Any) -> dict[str, Any]:
        options = [f"--checkpoint.resume={checkpoint}", f"--name={name}"]
        return {"run": make(name), "deepspeed": file, "options": options, **more}

    def gathered(ranks: int, file: str) -> dict[str, Any]:
        name = f"{Path(file).stem}-{ranks}.safetensors"
        return {"run": make("source"), "deepspeed": file, "gathers": str(tmp_path / name)}

    train_all(tmp_path, [
        {"run": make("source"), "deepspeed": zero3, "options": [f"--train.stop_at_step={SAVED}"]},
        {"run": make("whole"), "deepspeed": zero3},
        branch("zero1-2", zero1), branch("offload-2", offload), gathered(2, zero3), gathered(2, zero1),
    ], 2)  # fmt: skip
    train_all(tmp_path, [branch("zero3-3", zero3), gathered(3, zero3)], 3)
    train_all(tmp_path, [branch("zero3-4", zero3)], 4)
    train_all(tmp_path, [
        branch("zero3-1", zero3), branch("zero2-1", zero2), gathered(1, zero1),
        branch("tampered", zero3, tamper(source, tmp_path / "copy"), refused="CheckpointError"),
    ], 1)  # fmt: skip

    wanted = losses_after(tmp_path / "runs" / "whole", SAVED)
    assert len(wanted) == MORE
    for name in ("zero1-2", "offload-2", "zero3-3", "zero3-4", "zero3-1", "zero2-1"):
        assert losses_after(tmp_path / "runs" / name, SAVED) == pytest.approx(wanted, rel=1e-5), name
    for name in ("zero3-2", "zero1-2", "zero3-3", "zero1-1"):
        check_same_state(tmp_path / f"{name}.safetensors", StateFiles(source))
    said = (tmp_path / "tampered.rank0.CheckpointError").read_text()
    assert "exp_avg_sq of 'layers.0.self_attn.q_proj.weight' is not what was saved" in said


def tamper(source: Path, folder: Path) -> Path:
    """A copy whose files have the right hashes, and one bit of one moment that was not saved so."""
    path = folder / source.name
    shutil.copytree(source, path)
    manifest = json.loads((path / "manifest.json").read_text())
    key, name = "exp_avg_sq:0:layers.0.self_attn.q_proj.weight", "state/rank_00000.safetensors"
    tensors = load_file(path / name)
    tensors[key][0] = torch.nextafter(tensors[key][0], torch.tensor(1.0))
    with safe_open(path / name, framework="pt") as opened:
        save_file(tensors, path / name, opened.metadata())
    manifest["files"][name] = {"bytes": (path / name).stat().st_size, "sha256": sha256_of(path / name)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


STAGES = ("zero1", "zero2", "zero3", "zero3_offload")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_stage_goes_on_from_every_other(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path], precision: str
) -> None:
    stages = STAGES if precision == "bf16" else ("zero0", *STAGES)
    train = {**TRAIN, "steps": 6, "precision": precision}

    def make(name: str) -> str:
        return str(make_run(name, model=MODEL, train=train, evaluate={"sets": {}}))

    train_all(tmp_path, [
        {"run": make(stage), "deepspeed": str(zero_file(stage)), "options": options}
        for stage in stages for options in (["--train.stop_at_step=3"], [])
    ], 2)  # fmt: skip
    for ranks in (1, 2, 3):
        plan = []
        for source, stage in product(stages, stages):
            checkpoint = tmp_path / "runs" / source / "checkpoints" / "step_00000003"
            name = f"{source}-{stage}-{ranks}"
            options = [f"--checkpoint.resume={checkpoint}", f"--name={name}"]
            plan.append({"run": make(name), "deepspeed": str(zero_file(stage)), "options": options})
        train_all(tmp_path, plan, ranks)
        for source, stage in product(stages, stages):
            found = losses_after(tmp_path / "runs" / f"{source}-{stage}-{ranks}", 3)
            wanted = losses_after(tmp_path / "runs" / source, 3)
            tolerance = 1e-5 if precision == "fp32" else 1e-2
            assert found == pytest.approx(wanted, rel=tolerance), (source, stage, ranks)


@pytest.mark.slow
def test_a_named_checkpoint_goes_on_in_another_precision(
    tmp_path: Path, make_run: Callable[..., Path], zero_file: Callable[..., Path]
) -> None:
    def make(precision: str) -> str:
        train = {**TRAIN, "steps": 6, "precision": precision}
        return str(make_run(precision, model=MODEL, train=train, evaluate={"sets": {}}))

    bf16 = {"run": make("bf16"), "deepspeed": str(zero_file("zero3"))}
    plan = [{**bf16, "options": ["--train.stop_at_step=3"]}, bf16]
    checkpoint = tmp_path / "runs" / "bf16" / "checkpoints" / "step_00000003"
    options = [f"--checkpoint.resume={checkpoint}", "--name=fp32"]
    plan.append({"run": make("fp32"), "deepspeed": str(zero_file("zero1")), "options": options})
    train_all(tmp_path, plan)
    found, wanted = (losses_after(tmp_path / "runs" / name, 3) for name in ("fp32", "bf16"))
    assert found == pytest.approx(wanted, rel=1e-2)
    assert StateFiles(checkpoint).optimizer_step == 3
