"""The architectures by name: how each is shaped, built, begun and counted.

What they share is the call: forward(ids_BS, *, targets_BS, weights_BS, ...) -> logits or the summed loss.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from megadec.common.errors import check_choice
from megadec.decoder.flops import FORWARD_AND_BACKWARD, MULTIPLY_AND_ADD, sizes_of
from megadec.decoder.initialize import initial_tensor, normal_tensor
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape, check_names
from megadec.decoder.textbook.rnn import RnnSeq2Seq, RnnShape
from megadec.decoder.textbook.seq2seq import Seq2SeqShape, TransformerSeq2Seq

EMBEDDING_NAMES = ("embed_tokens.weight", "lm_head.weight")


@dataclasses.dataclass(frozen=True)
class Architecture:
    """first_value: (shape, parameter's name, its size, seed) -> float32 on the CPU, a pure function of these."""

    name: str
    shape: type
    module: Callable[[Any], nn.Module]
    first_value: Callable[[Any, str, tuple[int, ...], int], Tensor]

    def shape_from(self, values: Mapping[str, Any]) -> Any:
        """The shape of these fields. Raises ConfigError on an unknown, a missing or an impossible one."""
        check_names(self.shape, values, self.name, f"a {self.name} needs it")
        return self.shape(**values)

    def sizes(self, shape: Any) -> dict[str, tuple[int, ...]]:
        """Every parameter's size by name, in the module's order; a tied one once."""
        return sizes_of(lambda: self.module(shape))

    def flops(self, shape: Any, tokens: int, squared_tokens: int) -> int:
        """Operations of forward and backward for so many predictions.

        squared_tokens: squared lengths of documents, or source times target tokens of pairs, added up. Of the
        parameters, all matrices count but the look-up, the head even when it is tied. A source is counted as long as
        its target, since a batch tells the product of the two and not each.
        """
        sizes = self.sizes(shape).items()
        matrices = sum(math.prod(size) for name, size in sizes if len(size) == 2 and name not in EMBEDDING_NAMES)
        products = (matrices + shape.vocabulary_size * shape.hidden_size) * tokens
        return int(FORWARD_AND_BACKWARD * MULTIPLY_AND_ADD * (products + shape.attention_size * squared_tokens))


def architecture(name: str) -> Architecture:
    """The architecture of this name. Raises ConfigError."""
    check_choice("model.architecture", name, ARCHITECTURES)
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


_ALL = (
    Architecture("decoder", DecoderShape, Decoder, initial_tensor),
    Architecture("transformer_seq2seq", Seq2SeqShape, TransformerSeq2Seq, _first_of_transformer),
    Architecture("rnn_seq2seq", RnnShape, RnnSeq2Seq, _first_of_rnn),
)
ARCHITECTURES = {each.name: each for each in _ALL}
