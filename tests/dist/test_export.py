"""A checkpoint that the engine wrote gives the weights that it trained, at every ZeRO stage."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from megadec.export.huggingface.export import to_hf
from megadec.export.read.open_model import open_model
from megadec.export.score import ScoreOptions, score
from tests.support.foreign_models import READ, make_foreign
from tests.support.processes import metrics_of
from tests.support.tiny_runs import TinyRuns

# Stage, precision, tied embeddings, norms on queries and keys.
CASES = [
    ("zero0", "fp32", True, True),
    ("zero1", "fp32", False, True),
    ("zero1", "bf16", True, True),
    ("zero2", "fp32", True, False),
    ("zero2", "bf16", False, True),
    ("zero3", "fp32", True, True),
    ("zero3", "fp32", False, False),
    ("zero3", "bf16", True, True),
]
WINDOWS = {"windows": 9, "micro_batch_size": 4}
SIZES_OF_RUNS = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64,
}  # fmt: skip


def test_a_checkpoint_of_two_ranks_gives_the_trained_weights(runs: TinyRuns) -> None:
    plan: list[dict[str, Any]] = []
    for stage, precision, tied, qk_norm in CASES:
        # One key-value head for two heads, and sizes that two ranks do not share evenly.
        shape = {"tied_embeddings": tied, "qk_norm": qk_norm, "vocabulary_size": 601, "hidden_size": 34}
        train = {"steps": 4, "precision": precision}
        name = name_of(stage, precision, tied, qk_norm)
        training = runs.training(name, stage, model={"shape": shape}, train=train, evaluate=WINDOWS)
        plan += [training, {**training, "gathers": str(runs.folder / f"{name}.safetensors")}]
    # A model of other tools, of the sizes of these runs and with more rows than pieces, which pretraining goes on with.
    foreign = make_foreign(
        runs.folder / "foreign",
        replace(READ["llama-yarn-old"], config={**SIZES_OF_RUNS, "attention_bias": True}, padded=7),
        runs.tokenizer,
    )
    begun = {"init_from": str(foreign), "shape": {"heads": 2}}
    plan.append(runs.training("from-foreign", "zero3", model=begun, train={"steps": 4}, evaluate=WINDOWS))
    plan.append({**plan[-1], "gathers": str(runs.folder / "from-foreign.safetensors")})
    said = runs.train(*plan)
    assert said.count("is read as it is meant: largest logit difference") == 1, "by one rank, when the run begins"
    check_went_on_from(runs, "from-foreign", foreign)
    for case in CASES:
        name = name_of(*case)
        check_equals_what_deepspeed_says(runs.of(name), runs.folder / f"{name}.safetensors")
        if case[1] == "fp32":
            check_scores_what_training_last_recorded(runs.of(name), runs.shards)
    check_exports(runs.of(name), runs.folder / "model-hf")


def check_went_on_from(runs: TinyRuns, name: str, foreign: Path) -> None:
    """Shape, biases and scaled RoPE are the foreign model's, and so are the weights but for a few small updates."""
    source, trained = open_model(foreign), open_model(runs.of(name))
    assert trained.shape == replace(source.shape, initializer_std=trained.shape.initializer_std)
    assert (trained.shape.attention_bias, trained.shape.rope_scaling.rope_type) == ("qkvo", "yarn")
    for tensor_name in source.names():
        moved = (trained.tensor(tensor_name) - source.tensor(tensor_name)).abs().max()
        assert 0 < moved < 0.02, tensor_name
    check_equals_what_deepspeed_says(runs.of(name), runs.folder / f"{name}.safetensors")
    check_scores_what_training_last_recorded(runs.of(name), runs.shards)
    parity = to_hf(trained, runs.folder / f"{name}-hf")
    assert parity.greedy_tokens > 50


def name_of(stage: str, precision: str, tied: bool, qk_norm: bool) -> str:
    return f"{stage}-{precision}-{'tied' if tied else 'untied'}-{'qwen3' if qk_norm else 'llama'}"


def check_equals_what_deepspeed_says(run_folder: Path, gathered: Path) -> None:
    source, wanted = open_model(run_folder), load_file(gathered)
    assert ("lm_head.weight" in source.names()) != source.shape.tied_embeddings
    for tensor_name in source.names():
        found = source.tensor(tensor_name)
        assert found.dtype == torch.float32
        assert torch.equal(found, wanted[f"weight {tensor_name}"]), (run_folder.name, tensor_name)


def check_scores_what_training_last_recorded(run_folder: Path, shards: Path) -> None:
    """The one number that proves names, shapes, order and configuration together."""
    recorded = metrics_of(run_folder, "evaluate")[-1]
    assert recorded["step"] == 4
    found = score(ScoreOptions(model=run_folder, data=(str(shards),), sequence_length=32, device="cpu", **WINDOWS))
    figures = found["sets"][shards.name]
    assert figures["tokens"] == recorded["evaluated_tokens"]
    assert figures["bits_per_character"] == pytest.approx(recorded["bits_per_character"], rel=1e-6), run_folder.name


def check_exports(run_folder: Path, output: Path) -> None:
    """A bf16 run is exported in bfloat16: its master weights, rounded."""
    source = open_model(run_folder)
    to_hf(source, output)
    exported = open_model(output)
    assert (exported.dtype, exported.step, exported.tokens) == (torch.bfloat16, source.step, source.tokens)
    for tensor_name in source.names():
        assert torch.equal(exported.tensor(tensor_name), source.tensor(tensor_name).to(torch.bfloat16))
