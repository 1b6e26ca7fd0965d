"""The architectures by name: how each is shaped, built, begun and counted.

What they share is the call: forward(ids_BS, *, targets_BS, weights_BS, ...) -> logits or the summed loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from megadec.common.errors import ConfigError, suggest
from megadec.decoder.flops import FORWARD_AND_BACKWARD, MULTIPLY_AND_ADD, model_flops
from megadec.decoder.initialize import initial_tensor, normal_tensor
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape, check_names
from megadec.decoder.textbook.rnn import RnnSeq2Seq, RnnShape
from megadec.decoder.textbook.seq2seq import Seq2SeqShape, TransformerSeq2Seq

EMBEDDING_NAMES = ("embed_tokens.weight", "lm_head.weight")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """first_value: (shape, parameter's name, its size, seed) -> float32 on the CPU, a pure function of these.

    flops: (shape, tokens, squared_document_tokens) -> operations of forward and backward. pairs: whether it reads a
    source beside its ids.
    """

    name: str
    shape: type
    module: Callable[[Any], nn.Module]
    first_value: Callable[[Any, str, tuple[int, ...], int], Tensor]
    flops: Callable[[Any, int, int], int]
    pairs: bool

    def shape_from(self, values: Mapping[str, Any]) -> Any:
        """The shape of these fields. Raises ConfigError on an unknown, a missing or an impossible one."""
        check_names(self.shape, values, self.name, f"a {self.name} needs it")
        return self.shape(**values)

    def sizes(self, shape: Any) -> dict[str, tuple[int, ...]]:
        """Every parameter's size by name, in the module's order; a tied one once."""
        with torch.device("meta"):
            module = self.module(shape)
        return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def architecture(name: str) -> Architecture:
    """The architecture of this name. Raises ConfigError."""
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise ConfigError(f"model.architecture={name!r} is not known{suggest(name, ARCHITECTURES)}; there are {known}")
    return ARCHITECTURES[name]


def _first_of_transformer(shape: Seq2SeqShape, name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """The rules of the decoder; what is added to a stream is scaled by the depth of its own stack."""
    return initial_tensor(shape.encoder if name.startswith("encoder.") else shape.decoder, name, size, seed)


def _first_of_rnn(shape: RnnShape, name: str, size: tuple[int, ...], seed: int) -> Tensor:
    """Embeddings: std of the shape. Matrices: 1 / sqrt(inputs). Biases: 0, and 1 at an LSTM's forget gate.

    A forget gate that starts open lets gradients through many tokens (Jozefowicz et al., ICML 2015).
    """
    if name in EMBEDDING_NAMES:
        return normal_tensor(name, size, shape.initializer_std, seed)
    if len(size) > 1:
        return normal_tensor(name, size, 1.0 / math.sqrt(size[1]), seed)
    bias = torch.zeros(size, device="cpu")
    if shape.cell == "lstm" and "bias_ih" in name:
        bias[size[0] // 4 : size[0] // 2] = 1.0
    return bias


def _flops_of_pairs(name: str, attention_sizes: Callable[[Any], int]) -> Callable[[Any, int, int], int]:
    """tokens: predictions; squared_document_tokens: source times target tokens of each pair, added up.

    Of the parameters, all matrices count but the look-up, the head even when it is tied. A source is counted as long as
    its target, since a batch tells the product of the two and not each.
    """

    def flops(shape: Any, tokens: int, squared_tokens: int) -> int:
        sizes = ARCHITECTURES[name].sizes(shape).items()
        matrices = sum(math.prod(size) for key, size in sizes if len(size) == 2 and key not in EMBEDDING_NAMES)
        products = (matrices + int(shape.vocabulary_size * shape.hidden_size)) * tokens
        return FORWARD_AND_BACKWARD * MULTIPLY_AND_ADD * (products + 2 * attention_sizes(shape) * squared_tokens)

    return flops


def _attention_of_transformer(shape: Seq2SeqShape) -> int:
    # Full in the encoder and in cross-attention, causal (a half) in the decoder.
    return shape.decoder.query_size * (2 * shape.encoder_layers + 3 * shape.decoder_layers) // 2


ARCHITECTURES = {
    "decoder": Architecture("decoder", DecoderShape, Decoder, initial_tensor, model_flops, pairs=False),
    "transformer_seq2seq": Architecture(
        "transformer_seq2seq",
        Seq2SeqShape,
        TransformerSeq2Seq,
        _first_of_transformer,
        _flops_of_pairs("transformer_seq2seq", _attention_of_transformer),
        pairs=True,
    ),
    "rnn_seq2seq": Architecture(
        "rnn_seq2seq",
        RnnShape,
        RnnSeq2Seq,
        _first_of_rnn,
        _flops_of_pairs("rnn_seq2seq", lambda shape: int(shape.hidden_size)),
        pairs=True,
    ),
}
