"""What each method trains, and LoRA's arithmetic."""

import pytest
import torch
from torch.nn.functional import linear

from megadec.common.errors import ConfigError
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.finetune.lora import METHODS, LoraLinear, LoraOptions, Method, adapted, first_lora_value
from tests.support.sources import TINY_SHAPE

SHAPE = DecoderShape.from_mapping({**TINY_SHAPE, "vocabulary_size": 60, "qk_norm": False, "attention_bias": "qkv"})


@pytest.mark.parametrize("method", METHODS)
def test_each_method_trains_what_it_says(method: Method) -> None:
    classifier = adapted(Decoder(SHAPE, classes=5), method, LoraOptions(targets=("v_proj", "up_proj")))
    trained = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    everything = {name for name, _ in classifier.named_parameters()}
    parts = {
        f"layers.{layer}.{product}.{part}"
        for layer in range(SHAPE.layers)
        for product in ("self_attn.v_proj", "mlp.up_proj")
        for part in ("lora_a", "lora_b")
    }
    expected = {"full": everything, "scratch": everything, "frozen": {"score.weight"}, "lora": {"score.weight", *parts}}
    assert trained == expected[method]


def test_a_lora_layer_begins_as_the_plain_one_and_adds_its_scaled_product() -> None:
    torch.manual_seed(0)
    layer = LoraLinear(6, 4, LoraOptions(rank=2, alpha=5.0), bias=True).double()
    weight, bias, x = (torch.randn(*size).double() for size in ((4, 6), (4,), (3, 6)))
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
        layer.lora_a.copy_(first_lora_value("x.lora_a", (2, 6), 0))
        layer.lora_b.copy_(first_lora_value("x.lora_b", (4, 2), 0))
        assert layer.lora_a.any()
        assert torch.equal(layer(x), linear(x, weight, bias))
        layer.lora_b.normal_()
        merged = weight + 2.5 * layer.lora_b @ layer.lora_a
        torch.testing.assert_close(layer(x), linear(x, merged, bias))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "lora.rank=0"),
        ({"alpha": 0.0}, "lora.alpha"),
        ({"targets": ()}, "lora.targets is empty"),
        ({"targets": ("q_prog",)}, "did you mean 'q_proj'"),
    ],
)
def test_lora_that_cannot_be_is_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LoraOptions(**options)
