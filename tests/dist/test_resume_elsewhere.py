"""A checkpoint is not bound to the ranks and the ZeRO stage that wrote it, and what it does not prove is refused."""

import json
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megadec.common.files import sha256_of
from megadec.engine.zero.state_files import MOMENTS, WEIGHT, StateFiles
from tests.support.tiny_runs import NO_EVALUATION, TinyRuns

SAVED, MORE = 3, 3
STOP = f"--train.stop_at_step={SAVED}"


def training(
    runs: TinyRuns, name: str, stage: str, *options: str, steps: int = SAVED + MORE, precision: str = "fp32"
) -> dict[str, Any]:
    """A run of sizes that neither two, three nor four divide."""
    train = {"steps": steps, "global_batch_size": 12, "micro_batch_size": 1, "precision": precision}
    model = {"shape": {"vocabulary_size": 601, "hidden_size": 34}}
    return runs.training(name, stage, *options, model=model, train=train, evaluate=NO_EVALUATION)


def resuming(checkpoint: Path) -> str:
    return f"--checkpoint.resume={checkpoint}"


def losses_after(runs: TinyRuns, name: str) -> list[float]:
    """Of the steps behind the checkpoint."""
    return [line["loss"] for line in runs.metrics(name) if line["step"] > SAVED]


def check_same_state(gathered: Path, wanted: StateFiles) -> None:
    """Bit for bit: every weight and both moments of each."""
    found = load_file(gathered)
    assert found.keys() == {f"{part} {name}" for name in wanted.shapes for part in (WEIGHT, *MOMENTS)}
    for key, tensor in found.items():
        part, name = key.split()
        assert torch.equal(tensor.flatten(), wanted.read_range(name, part, 0, tensor.numel())), key


def test_a_zero_3_run_of_two_ranks_goes_on_at_one_three_and_four_and_at_stage_1(runs: TinyRuns) -> None:
    source = runs.checkpoint("source", SAVED)

    def branches(ranks: int, *stages: str) -> list[dict[str, Any]]:
        return [training(runs, f"{stage}-{ranks}", stage, resuming(source)) for stage in stages]

    def gathered(ranks: int, stage: str) -> dict[str, Any]:
        return {**training(runs, "source", stage), "gathers": str(runs.folder / f"{stage}-{ranks}.safetensors")}

    begun = [training(runs, "source", "zero3", STOP), training(runs, "whole", "zero3")]
    runs.train(*begun, *branches(2, "zero1", "zero3_offload"), gathered(2, "zero3"), gathered(2, "zero1"))
    runs.train(*branches(3, "zero3"), gathered(3, "zero3"), ranks=3)
    runs.train(*branches(4, "zero3"), ranks=4)
    tampered = training(runs, "tampered", "zero3", resuming(tamper(source, runs.folder / "copy")))
    tampered["refused"] = "CheckpointError"
    runs.train(*branches(1, "zero3", "zero2"), gathered(1, "zero1"), tampered, ranks=1)

    wanted = losses_after(runs, "whole")
    assert len(wanted) == MORE
    for name in ("zero1-2", "zero3_offload-2", "zero3-3", "zero3-4", "zero3-1", "zero2-1"):
        assert losses_after(runs, name) == pytest.approx(wanted, rel=1e-5), name
    for name in ("zero3-2", "zero1-2", "zero3-3", "zero1-1"):
        check_same_state(runs.folder / f"{name}.safetensors", StateFiles(source))
    [said] = runs.refusals("tampered", "CheckpointError")
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


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_stage_goes_on_from_every_other(runs: TinyRuns, precision: str) -> None:
    stages = ["zero0"] * (precision == "fp32") + ["zero1", "zero2", "zero3", "zero3_offload"]
    short: dict[str, Any] = {"steps": 6, "precision": precision}
    runs.train(*(training(runs, stage, stage, *options, **short) for stage in stages for options in ([STOP], [])))
    for ranks in (1, 2, 3):
        names = {f"{source}-{stage}-{ranks}": (source, stage) for source, stage in product(stages, stages)}
        plan = [
            training(runs, name, stage, resuming(runs.checkpoint(source, SAVED)), **short)
            for name, (source, stage) in names.items()
        ]
        runs.train(*plan, ranks=ranks)
        for name, (source, _) in names.items():
            tolerance = 1e-5 if precision == "fp32" else 1e-2
            assert losses_after(runs, name) == pytest.approx(losses_after(runs, source), rel=tolerance), name


@pytest.mark.slow
def test_a_named_checkpoint_goes_on_in_another_precision(runs: TinyRuns) -> None:
    checkpoint = runs.checkpoint("bf16", SAVED)
    runs.train(
        training(runs, "bf16", "zero3", STOP, steps=6, precision="bf16"),
        training(runs, "bf16", "zero3", steps=6, precision="bf16"),
        training(runs, "fp32", "zero1", resuming(checkpoint), steps=6),
    )
    assert losses_after(runs, "fp32") == pytest.approx(losses_after(runs, "bf16"), rel=1e-2)
    assert StateFiles(checkpoint).optimizer_step == SAVED
