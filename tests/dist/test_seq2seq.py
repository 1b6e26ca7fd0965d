"""Encoder-decoders through the engine: two ranks under ZeRO-3 are plain torch, and a stop changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from megadec.common.config import from_yaml
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.pair_stream import PairStream, assemble_pairs
from megadec.data.pairs import open_pairs
from megadec.decoder.textbook.registry import architecture
from megadec.engine.runs.seq2seq import PairsRun
from megadec.export.read.model import open_model
from megadec.export.read.seq2seq import load_seq2seq
from tests.support.decoders import fresh
from tests.support.pair_texts import texts, write_pairs
from tests.support.processes import losses_of, metrics_of, train_all
from tests.support.seq2seq_models import RNN, TRANSFORMER, train_plainly

STEPS, STOP = 12, 5
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"architecture": "transformer_seq2seq", "shape": TRANSFORMER},
    "gru": {"architecture": "rnn_seq2seq", "shape": RNN},
    "lstm": {
        "architecture": "rnn_seq2seq",
        "shape": {**RNN, "cell": "lstm", "attention": "luong", "tied_embeddings": False},
    },
}


def run_file(folder: Path, name: str, model: dict[str, Any], tokenizer: Path, **train: Any) -> Path:
    pairs = folder / "pairs.txt"
    if not pairs.exists():
        write_pairs(pairs, texts(200), "reverse")
    run = {
        "name": name,
        "output_folder": str(folder / "runs"),
        "tokenizer": str(tokenizer),
        "model": {**model, "shape": {**model["shape"], "vocabulary_size": 600}},
        "data": {"source": str(pairs), "held_out_fraction": 0.1, "max_source_tokens": 24, "max_target_tokens": 24},
        "train": {"steps": STEPS, "global_batch_size": 16, "micro_batch_size": 4, "precision": "fp32", **train},
        "optimizer": {"learning_rate": 0.005, "max_grad_norm": 0.5},
        "schedule": {"warmup_steps": 3},
        "evaluate": {"interval_steps": 6, "micro_batch_size": 8},
        "checkpoint": {"interval_steps": 0},
        "metrics": {"tensorboard": False},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(run), encoding="utf-8")
    return path


@pytest.fixture
def trained(tmp_path: Path, tiny_tokenizer_path: Path, zero_file: Callable[..., Path]) -> Path:
    """Each model trained on two ranks under ZeRO-3, whole and in two parts, and one in bf16; the folder of all."""
    plan = []
    for name, model in MODELS.items():
        run = run_file(tmp_path, name, model, tiny_tokenizer_path)
        parts = run_file(tmp_path, f"{name}-parts", model, tiny_tokenizer_path)
        for file, options in ((run, []), (parts, [f"--train.stop_at_step={STOP}"]), (parts, [])):
            plan.append({"run": str(file), "options": options})
    plan.append({"run": str(run_file(tmp_path, "bf16", MODELS["gru"], tiny_tokenizer_path, precision="bf16"))})
    whole = [{**one, "kind": "seq2seq", "deepspeed": str(zero_file("zero3"))} for one in plan]
    train_all(tmp_path, whole)
    return tmp_path


def plain(file: Path) -> tuple[list[float], float, torch.nn.Module]:
    """The same run in plain torch: its losses, the loss on the held-out part at the end, and the model."""
    run = from_yaml(PairsRun, file)
    tokenizer = Tokenizer.load(run.tokenizer)
    found = architecture(run.model.architecture)
    model = fresh(found, run.model.pair_shape(tokenizer), run.seed)
    stream = PairStream(open_pairs(run.data, tokenizer, "train"), run.seed, run.train.global_batch_size)
    losses = train_plainly(model, stream, run.train.steps, run.optimizer, run.schedule)
    held_out = open_pairs(run.data, tokenizer, "held_out")
    batch = assemble_pairs(held_out, range(len(held_out)))
    with torch.no_grad():
        loss = float(model(batch.ids_BS, **batch.model_arguments())) / batch.valid_tokens
    return losses, loss, model


def test_two_ranks_under_zero_3_are_plain_torch_stopped_or_not_and_what_they_saved_loads(trained: Path) -> None:
    for name in MODELS:
        losses, held_out, model = plain(trained / f"{name}.yaml")
        assert losses[-1] < losses[0] - 0.5, "a model must learn something for the comparison to mean something"
        folder = trained / "runs" / name
        assert losses_of(folder) == pytest.approx(losses, rel=1e-5), name
        assert losses_of(trained / "runs" / f"{name}-parts") == losses_of(folder), name
        evaluations = metrics_of(folder, "evaluate")
        assert [line["step"] for line in evaluations] == [0, 6, 12]
        assert evaluations[-1]["loss"] == pytest.approx(held_out, rel=1e-5)
        loaded = load_seq2seq(folder)
        assert (loaded.step, loaded.architecture) == (STEPS, MODELS[name]["architecture"])
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(loaded.model.get_parameter(key), parameter.detach(), rtol=2e-3, atol=2e-4)
    assert losses_of(trained / "runs" / "bf16") == pytest.approx(losses_of(trained / "runs" / "gru"), rel=2e-2)
    check_refusals(trained)


def check_refusals(trained: Path) -> None:
    """What was saved is not taken for a decoder, and a changed file not for what was saved."""
    run = trained / "runs" / "gru"
    with pytest.raises(ConfigError, match="holds a seq2seq model; a decoder or a classifier was expected"):
        open_model(run)
    with pytest.raises(ConfigError, match="is neither a run"):
        load_seq2seq(trained)
    [checkpoint] = (run / "checkpoints").glob("step_*")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["shape"]["decoder_layers"] = 1
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="its tensors are not those of a rnn_seq2seq of this shape"):
        load_seq2seq(checkpoint)
    (checkpoint / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        load_seq2seq(checkpoint)
