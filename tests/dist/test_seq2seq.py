"""Encoder-decoders through the engine: two ranks under ZeRO-3 are plain torch, and a stop changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from megadec.common.config import from_yaml
from megadec.common.errors import CheckpointError, ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.pair_stream import PairStream, assemble_pairs
from megadec.data.pairs import open_pairs
from megadec.decoder.textbook.registry import architecture
from megadec.engine.runs.seq2seq import PairsRun
from megadec.export.read.seq2seq import load_seq2seq
from tests.support.decoders import fresh
from tests.support.pair_texts import texts, write_pairs
from tests.support.plain_training import train_plainly
from tests.support.processes import write_run
from tests.support.seq2seq_models import RNN, TRANSFORMER
from tests.support.tiny_runs import TinyRuns

STEPS, STOP = 12, 5
MODELS: dict[str, dict[str, Any]] = {
    "transformer": {"architecture": "transformer_seq2seq", "shape": TRANSFORMER},
    "gru": {"architecture": "rnn_seq2seq", "shape": RNN},
    "lstm": {
        "architecture": "rnn_seq2seq",
        "shape": {**RNN, "cell": "lstm", "attention": "luong", "tied_embeddings": False},
    },
}
STOPPED = ("transformer", "lstm")


def pairs_run(folder: Path, name: str, model: dict[str, Any], tokenizer: Path, **train: Any) -> Path:
    """Write a run that learns to turn texts round."""
    pairs = write_pairs(folder / "pairs.txt", texts(200), "reverse")
    run = {
        "tokenizer": str(tokenizer),
        "model": {**model, "shape": {**model["shape"], "vocabulary_size": 600}},
        "data": {"source": str(pairs), "held_out_fraction": 0.1, "max_source_tokens": 24, "max_target_tokens": 24},
        "train": {"steps": STEPS, "global_batch_size": 16, "micro_batch_size": 4, "precision": "fp32", **train},
        "optimizer": {"learning_rate": 0.005, "max_grad_norm": 0.5},
        "schedule": {"warmup_steps": 3},
        "evaluate": {"interval_steps": 6, "micro_batch_size": 8},
        "checkpoint": {"interval_steps": 0},
    }
    return write_run(folder, name, run, {})


@pytest.fixture
def trained(runs: TinyRuns) -> TinyRuns:
    """Each model trained on two ranks under ZeRO-3, two also in two parts, and one in bf16."""

    def training(name: str, model: str, *options: str, **train: Any) -> dict[str, Any]:
        run = pairs_run(runs.folder, name, MODELS[model], runs.tokenizer, **train)
        return {"run": str(run), "options": options, "kind": "seq2seq", "deepspeed": str(runs.zero("zero3"))}

    plan = []
    for name in MODELS:
        plan.append(training(name, name))
    for name in STOPPED:
        plan += [training(f"{name}-parts", name, f"--train.stop_at_step={STOP}"), training(f"{name}-parts", name)]
    runs.train(*plan, training("bf16", "gru", precision="bf16"))
    return runs


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


def test_two_ranks_under_zero_3_are_plain_torch_stopped_or_not_and_what_they_saved_loads(trained: TinyRuns) -> None:
    for name in MODELS:
        losses, held_out, model = plain(trained.folder / f"{name}.yaml")
        assert losses[-1] < losses[0] - 0.5, "a model must learn something for the comparison to mean something"
        assert trained.losses(name) == pytest.approx(losses, rel=1e-5), name
        if name in STOPPED:
            assert trained.losses(f"{name}-parts") == trained.losses(name), name
        evaluations = trained.metrics(name, "evaluate")
        assert [line["step"] for line in evaluations] == [0, 6, 12]
        assert evaluations[-1]["loss"] == pytest.approx(held_out, rel=1e-5)
        loaded = load_seq2seq(trained.of(name))
        assert (loaded.step, loaded.architecture) == (STEPS, MODELS[name]["architecture"])
        for key, parameter in model.named_parameters():
            torch.testing.assert_close(loaded.model.get_parameter(key), parameter.detach(), rtol=2e-3, atol=2e-4)
    assert trained.losses("bf16") == pytest.approx(trained.losses("gru"), rel=2e-2)
    check_refusals(trained.of("gru"))


def check_refusals(run: Path) -> None:
    """A folder without a run, and a changed file."""
    with pytest.raises(ConfigError, match="is neither a run"):
        load_seq2seq(run.parent)
    [checkpoint] = (run / "checkpoints").glob("step_*")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["shape"]["decoder_layers"] = 1
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="its tensors are not those of a rnn_seq2seq of this shape"):
        load_seq2seq(checkpoint)
    (checkpoint / "tokenizer.model").write_bytes(b"another")
    with pytest.raises(CheckpointError, match=r"tokenizer\.model"):
        load_seq2seq(checkpoint)
