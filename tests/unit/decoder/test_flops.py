"""Parameter and operation counts against torch's own counter and the published convention."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megadec.decoder.flops import flops_per_token, model_flops, parameter_count, product_parameter_count
from megadec.decoder.initialize import initialize
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape

TINY = DecoderShape(
    vocabulary_size=97,
    hidden_size=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=24,
    intermediate_size=128,
    max_position_embeddings=64,
)


def test_product_flops_are_those_torch_counts_in_one_forward_pass() -> None:
    decoder = Decoder(TINY)
    initialize(decoder, 0)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(3, 16, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    assert 3 * products == 6 * product_parameter_count(TINY) * 3 * 16


def test_attention_flops_follow_palms_convention_and_causal_is_half() -> None:
    tokens = 16
    palm = 6 * product_parameter_count(TINY) + 12 * TINY.layers * TINY.heads * TINY.head_size * tokens
    assert flops_per_token(TINY, tokens, causal=False) == palm
    products = 6 * product_parameter_count(TINY)
    assert flops_per_token(TINY, tokens) - products == (palm - products) / 2


def test_flops_of_a_batch_are_those_of_its_tokens() -> None:
    assert model_flops(TINY, tokens=40, squared_tokens=4 * 10 * 10) == 40 * flops_per_token(TINY, 10)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_costs_the_same_whether_tied_or_not(tied: bool) -> None:
    shape = DecoderShape.from_mapping({**TINY.to_dict(), "tied_embeddings": tied})
    assert product_parameter_count(shape) == product_parameter_count(TINY)
    matrix = TINY.vocabulary_size * TINY.hidden_size
    assert parameter_count(shape) == parameter_count(TINY) + (0 if tied else matrix)


def test_a_classifier_costs_its_blocks_and_no_vocabulary() -> None:
    matrix = TINY.vocabulary_size * TINY.hidden_size
    assert product_parameter_count(TINY, classes=14) == product_parameter_count(TINY) - matrix
    assert model_flops(TINY, 40, 400, classes=14) == model_flops(TINY, 40, 400) - 6 * 40 * matrix
    assert parameter_count(TINY, classes=14) == parameter_count(TINY) + 14 * TINY.hidden_size
