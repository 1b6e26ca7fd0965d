"""How many parameters a shape has, and how many floating-point operations a token costs.

The convention is that of PaLM (arXiv 2204.02311, appendix B): 6 operations a token, forward and backward, for each
parameter that takes part in a product, plus attention. The embedding is a look-up and counts nothing; the head counts,
tied or not; attention is counted as causal inside each document (half of PaLM's 12 L H Q T), so figures come out lower
than those of projects that count the full square. Operations repeated by activation checkpointing are not counted.
"""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape

FORWARD_AND_BACKWARD = 3
MULTIPLY_AND_ADD = 2


def sizes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Each parameter's size by name, in the order of the module that `build` makes; a tied one once."""
    with torch.device("meta"):
        module = build()
    return {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}


def parameter_table(shape: DecoderShape, classes: int | None = None) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter by name, in the decoder's order; `lm_head.weight` is left out when it is tied.

    With `classes`, those of a classifier: `score.weight` in place of `lm_head.weight`.
    """
    return sizes_of(lambda: Decoder(shape, classes=classes))


def parameter_count(shape: DecoderShape, classes: int | None = None) -> int:
    """Trainable numbers, a tied matrix counted once."""
    return sum(math.prod(size) for size in parameter_table(shape, classes).values())


@functools.lru_cache(maxsize=64)
def product_parameter_count(shape: DecoderShape, classes: int | None = None) -> int:
    """Parameters that multiply each token: all matrices but the embedding look-up, and the head even when tied.

    A classifier's head is left out: it multiplies one token of a text.
    """
    head = shape.vocabulary_size * shape.hidden_size if classes is None else 0
    sizes = parameter_table(shape).items()
    return head + sum(math.prod(size) for name, size in sizes if name.startswith("layers.") and len(size) == 2)


def attention_flops(shape: DecoderShape, squared_tokens: int) -> int:
    """Forward and backward operations of all attention, where squared_tokens is the sum of squared document lengths."""
    return FORWARD_AND_BACKWARD * MULTIPLY_AND_ADD * shape.attention_size * squared_tokens


def model_flops(shape: DecoderShape, tokens: int, squared_tokens: int, *, classes: int | None = None) -> int:
    """Operations to train on `tokens` tokens whose documents' squared lengths sum to squared_tokens."""
    products = FORWARD_AND_BACKWARD * MULTIPLY_AND_ADD * product_parameter_count(shape, classes) * tokens
    return products + attention_flops(shape, squared_tokens)


def flops_per_token(shape: DecoderShape, document_tokens: float) -> float:
    """Operations a token to train on documents of this length (for a mixture: the mean square over the mean)."""
    return model_flops(shape, 1, 0) + attention_flops(shape, 1) * document_tokens
