"""Tiny encoder-decoders that tests share: every architecture that reads pairs, in each of its variants."""

from typing import Any

from torch import nn

from megadec.decoder.textbook.registry import architecture
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
