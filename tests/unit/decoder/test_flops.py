"""Parameter and operation counts against torch's own counter and the published convention."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from megadec.decoder.flops import flops_per_token, model_flops, parameter_count, product_parameter_count
from tests.support.decoders import decoder_of, tiny_shape

TINY = tiny_shape(head_size=24)


def test_product_flops_are_those_torch_counts_in_one_forward_pass() -> None:
    decoder = decoder_of(TINY)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        decoder(torch.zeros(3, 16, dtype=torch.int64))
    counts = counter.get_flop_counts()["Global"]
    products = sum(count for operation, count in counts.items() if "attention" not in str(operation))
    assert 3 * products == 6 * product_parameter_count(TINY) * 3 * 16


def test_biases_are_parameters_that_multiply_nothing() -> None:
    plain = replace(TINY, qk_norm=False, hidden_size=64)
    qkv = plain.query_size + 2 * plain.key_value_size
    for bias, width in (("qkv", qkv), ("qkvo", qkv + plain.hidden_size)):
        shape = replace(plain, attention_bias=bias)
        assert parameter_count(shape) - parameter_count(plain) == shape.layers * width
        assert product_parameter_count(shape) == product_parameter_count(plain)


def test_attention_costs_half_of_palms_12_lhqt_as_it_is_causal() -> None:
    palm = 12 * TINY.layers * TINY.heads * TINY.head_size * 16
    assert flops_per_token(TINY, 16) == 6 * product_parameter_count(TINY) + palm / 2


def test_flops_of_a_batch_are_those_of_its_tokens() -> None:
    assert model_flops(TINY, tokens=40, squared_tokens=4 * 10 * 10) == 40 * flops_per_token(TINY, 10)


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_costs_the_same_whether_tied_or_not(tied: bool) -> None:
    shape = replace(TINY, tied_embeddings=tied)
    assert product_parameter_count(shape) == product_parameter_count(TINY)
    matrix = TINY.vocabulary_size * TINY.hidden_size
    assert parameter_count(shape) == parameter_count(TINY) + (0 if tied else matrix)


def test_a_classifier_costs_its_blocks_and_no_vocabulary() -> None:
    matrix = TINY.vocabulary_size * TINY.hidden_size
    assert product_parameter_count(TINY, classes=14) == product_parameter_count(TINY) - matrix
    assert model_flops(TINY, 40, 400, classes=14) == model_flops(TINY, 40, 400) - 6 * 40 * matrix
    assert parameter_count(TINY, classes=14) == parameter_count(TINY) + 14 * TINY.hidden_size
