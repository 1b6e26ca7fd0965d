"""Tiny decoders that tests share, and models with first values."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from megadec.decoder.initialize import initial_tensor
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoder.textbook.registry import Architecture

TINY: dict[str, Any] = {
    "vocabulary_size": 97,
    "hidden_size": 64,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_size": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
# A context of 64 positions after one of 16.
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3", "factor": 4.0, "original_max_position_embeddings": 16, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}  # fmt: skip
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


def tiny_shape(**changes: Any) -> DecoderShape:
    return DecoderShape.from_mapping({**TINY, **changes})


def initialize(model: Any, seed: int, first_value: Callable[..., Tensor] = initial_tensor) -> None:
    """Give every parameter its first value, in place."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(first_value(model.shape, name, tuple(parameter.shape), seed))


def decoder_of(shape: DecoderShape, seed: int = 1, dtype: torch.dtype = torch.float32, **options: Any) -> Decoder:
    """A decoder with its first values; options as Decoder takes them."""
    decoder = Decoder(shape, **options)
    initialize(decoder, seed)
    return decoder.to(dtype)


def fresh(architecture: Architecture, shape: Any, seed: int) -> nn.Module:
    """The architecture's module with its first values."""
    module = architecture.module(shape)
    initialize(module, seed, architecture.first_value)
    return module


# With large first values, so that what should differ differs visibly: with and without QK-norm, tied and untied
# embeddings, grouped and single heads, biases (first values of which are zero) and scaled RoPE.
VARIANTS = [
    tiny_shape(hidden_size=96, layers=3, heads=6, initializer_std=0.2, **changes)
    for changes in (
        {"rope_scaling": YARN},
        {"qk_norm": False, "tied_embeddings": False, "attention_bias": "qkvo"},
        {"kv_heads": 6},
    )
]
