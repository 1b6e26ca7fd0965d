"""The architectures by name: what their shapes refuse, how they begin, what they are said to cost."""

import re
from typing import Any

import pytest
import torch

from megadec.common.errors import ConfigError
from megadec.decoder.textbook.registry import ARCHITECTURES, Architecture, architecture
from megadec.engine.optimizer import OptimizerOptions, decays
from tests.support.decoders import TINY, fresh
from tests.support.seq2seq_models import RNN, SHAPES, TRANSFORMER

ALL = [("decoder", TINY), *SHAPES]
Made = tuple[Architecture, Any]  # and a shape of it
VALUES = {"decoder": TINY, "transformer_seq2seq": TRANSFORMER, "rnn_seq2seq": RNN}


@pytest.fixture(params=ALL)
def made(request: pytest.FixtureRequest) -> Made:
    name, values = request.param
    found = architecture(name)
    return found, found.shape_from(values)


def test_every_architecture_is_covered_here() -> None:
    assert {name for name, _ in ALL} == set(ARCHITECTURES)


def test_a_shape_survives_being_written_and_read(made: Made) -> None:
    found, shape = made
    assert found.shape_from(shape.to_dict()) == shape


def test_first_values_are_a_function_of_seed_and_name_alone(made: Made) -> None:
    found, shape = made
    sizes = found.sizes(shape)
    model = fresh(found, shape, 7)
    torch.manual_seed(123)
    for key, parameter in reversed(list(model.named_parameters())):
        assert torch.equal(found.first_value(shape, key, sizes[key], 7), parameter)
        if not key.endswith("norm.weight") and "bias" not in key:
            assert not torch.equal(found.first_value(shape, key, sizes[key], 8), parameter)
            assert parameter.std() > 0, f"{key} would never learn"


def test_an_lstms_forget_gates_begin_open_and_other_biases_at_zero() -> None:
    found = architecture("rnn_seq2seq")
    shape = found.shape_from({**RNN, "cell": "lstm"})
    for name, parameter in fresh(found, shape, 0).named_parameters():
        if "bias" in name:
            quarter = len(parameter) // 4
            expected = torch.zeros(4 * quarter)
            expected[quarter : 2 * quarter] = float("bias_ih" in name)
            assert torch.equal(parameter, expected)


def test_weight_decay_pulls_on_matrices_only(made: Made) -> None:
    found, shape = made
    for key, size in found.sizes(shape).items():
        looked_up = key in ("embed_tokens.weight", "lm_head.weight")
        assert decays(key, OptimizerOptions()) == (len(size) == 2 and not looked_up), key


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("decoder", {"kv_heads": 3}, "model.shape.heads=4 is not a multiple of model.shape.kv_heads=3"),
        ("decoder", {"hidden_size": 66, "qk_norm": False}, "hidden_size=66 is not a multiple of model.shape.heads=4"),
        ("decoder", {"head_size": 63}, "model.shape.head_size=63 is not a multiple of 8"),
        ("decoder", {"intermediate_size": 500}, "model.shape.intermediate_size=500 is not a multiple of 64"),
        ("decoder", {"layers": 2.5}, "model.shape.layers=2.5 is not a whole number"),
        ("decoder", {"layers": True}, "model.shape.layers=True is not a number greater than zero"),
        ("decoder", {"norm_eps": "1e-6"}, "model.shape.norm_eps='1e-6' is not a number greater than zero"),
        ("decoder", {"qk_norm": "no"}, "model.shape.qk_norm='no' is not true or false"),
        ("transformer_seq2seq", {"kv_heads": 3}, "model.shape.heads=4 is not a multiple of model.shape.kv_heads=3"),
        ("transformer_seq2seq", {"encoder_layers": 0}, "encoder_layers=0 is not a number greater than zero"),
        ("transformer_seq2seq", {"cell": "gru"}, "model.shape.cell is not a field of the transformer_seq2seq's shape"),
        ("rnn_seq2seq", {"cell": "rnn"}, "model.shape.cell='rnn' is none of gru, lstm"),
        ("rnn_seq2seq", {"attention": "dot"}, "model.shape.attention='dot' is none of bahdanau, luong"),
        ("rnn_seq2seq", {"hidden_size": 33}, "model.shape.hidden_size=33 is odd"),
        ("rnn_seq2seq", {"hiden_size": 32}, "did you mean 'hidden_size'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(name: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        architecture(name).shape_from({**VALUES[name], **change})


def test_a_missing_field_and_an_unknown_name_are_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.shape\.encoder_layers is missing"):
        architecture("rnn_seq2seq").shape_from({"vocabulary_size": 9, "hidden_size": 8})
    with pytest.raises(ConfigError, match=r"none of decoder, .*did you mean 'rnn_seq2seq'"):
        architecture("rnn_seq2sec")


def test_operations_are_six_for_each_number_that_multiplies_a_token(made: Made) -> None:
    found, shape = made
    sizes = found.sizes(shape)
    head = shape.vocabulary_size * shape.hidden_size
    matrices = sum(a * b for a, b in (size for size in sizes.values() if len(size) == 2))
    looked_up = head if shape.tied_embeddings else 2 * head
    assert found.flops(shape, 10, 0) == 60 * (matrices - looked_up + head)
    assert found.flops(shape, 10, 50) - found.flops(shape, 10, 0) == 50 * found.flops(shape, 0, 1)
