"""Tiny encoder-decoders that tests share: every architecture that reads pairs, in each of its variants."""

from __future__ import annotations

from typing import Any

from torch import nn

from megadec.data.pair_stream import PairStream
from megadec.decoder.textbook.registry import architecture
from megadec.engine.schedule import ScheduleOptions, learning_rate_factor
from megadec.engine.zero.optimizer import OptimizerOptions, build_optimizer
from tests.support.decoders import fresh

VOCABULARY = 41

RNN: dict[str, Any] = {
    "vocabulary_size": VOCABULARY,
    "hidden_size": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_position_embeddings": 24,
    "initializer_std": 0.5,
}
TRANSFORMER: dict[str, Any] = {
    **RNN,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 8,
    "intermediate_size": 64,
    "initializer_std": 0.2,
}
SHAPES = [
    ("transformer_seq2seq", TRANSFORMER),
    ("transformer_seq2seq", {**TRANSFORMER, "qk_norm": False, "tied_embeddings": False, "kv_heads": 4}),
    ("rnn_seq2seq", RNN),
    ("rnn_seq2seq", {**RNN, "cell": "lstm", "attention": "luong"}),
    ("rnn_seq2seq", {**RNN, "cell": "lstm", "tied_embeddings": False, "decoder_layers": 1}),
    ("rnn_seq2seq", {**RNN, "attention": "luong"}),
]


def model_of(name: str, values: dict[str, Any], seed: int = 3) -> nn.Module:
    """The model with its first values, in float64."""
    found = architecture(name)
    return fresh(found, found.shape_from(values), seed).double().eval()


def train_plainly(
    model: nn.Module, stream: PairStream, steps: int, optimizer: OptimizerOptions, schedule: ScheduleOptions
) -> list[float]:
    """The engine's training in plain torch: one process, the whole step as one batch. The loss of each step."""
    adamw = build_optimizer(model.named_parameters(), optimizer)
    losses = []
    for step in range(steps):
        [batch] = stream.batch(step)
        loss = model(batch.ids_BS, **batch.model_arguments()) / batch.valid_tokens
        adamw.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimizer.max_grad_norm)
        for group in adamw.param_groups:
            group["lr"] = optimizer.learning_rate * learning_rate_factor(schedule, step, steps)
        adamw.step()
        losses.append(float(loss.detach()))
    return losses
