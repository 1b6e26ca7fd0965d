"""Generation with a cache is the full forward pass, token by token."""

from __future__ import annotations

import pytest
import torch

from megadec.decoder.cache import KeyValueCache
from megadec.decoder.initialize import initialize
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoding.generate import Continuation, Sampling
from megadec.decoding.session import DecoderModel

BASE = {
    "vocabulary_size": 97,
    "hidden_size": 96,
    "layers": 3,
    "heads": 6,
    "kv_heads": 2,
    "head_size": 16,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
    "initializer_std": 0.2,
}
SHAPES = [
    DecoderShape.from_mapping({**BASE, **changes})
    for changes in ({}, {"qk_norm": False, "tied_embeddings": False}, {"kv_heads": 6})
]


@pytest.fixture(autouse=True)
def _same_ids_each_time() -> None:
    torch.manual_seed(0)


def decoder_of(shape: DecoderShape) -> Decoder:
    decoder = Decoder(shape)
    initialize(decoder, 2)
    return decoder


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [[1] * 40, [39, 1], [17, 1, 1, 20, 1], [40]])
def test_logits_with_a_cache_are_those_of_the_full_pass(shape: DecoderShape, steps: list[int]) -> None:
    decoder = decoder_of(shape)
    ids = torch.randint(0, 97, (2, 40))
    cache = KeyValueCache(shape, 2, device=torch.device("cpu"), dtype=torch.float32, capacity_tokens=3)
    with torch.no_grad():
        cached = torch.cat([decoder(part, cache=cache) for part in ids.split(steps, dim=1)], dim=1)
        torch.testing.assert_close(cached, decoder(ids), rtol=1e-4, atol=1e-4)
    assert cache.length == 40


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_ids_are_those_of_full_passes(shape: DecoderShape) -> None:
    decoder = decoder_of(shape)
    ids = [1, 50, 3]
    with torch.no_grad():
        for _ in range(40):
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    found = list(Continuation(DecoderModel(decoder), ids[:3], Sampling(max_new_tokens=40, temperature=0)))
    assert found == ids[3:]
    assert len(set(found)) > 3, "a decoder that repeats itself proves little"


def test_the_last_tokens_logits_are_the_last_of_all() -> None:
    decoder = decoder_of(SHAPES[0])
    ids = torch.randint(0, 97, (3, 20))
    with torch.no_grad():
        last, every = decoder(ids, last_only=True), decoder(ids)
    assert last.shape == (3, 1, 97)
    torch.testing.assert_close(last, every[:, -1:])


def test_a_cache_cut_back_goes_on_as_if_the_rest_was_never_seen() -> None:
    decoder = decoder_of(SHAPES[0])
    ids = torch.randint(0, 97, (1, 20))
    cache = KeyValueCache(SHAPES[0], 1, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        decoder(torch.cat([ids[:, :12], ids[:, :5]], dim=1), cache=cache)
        cache.truncate(12)
        torch.testing.assert_close(decoder(ids[:, 12:], cache=cache), decoder(ids)[:, 12:], rtol=1e-4, atol=1e-4)
