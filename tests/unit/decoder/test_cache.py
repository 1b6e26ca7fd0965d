"""The key-value cache: what goes in comes back, up to the context."""

from __future__ import annotations

import pytest
import torch

from megadec.common.errors import InputError
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.shape import DecoderShape

TINY = DecoderShape(
    vocabulary_size=97,
    hidden_size=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=16,
    intermediate_size=128,
    max_position_embeddings=40,
)


@pytest.fixture(autouse=True)
def _same_ids_each_time() -> None:
    torch.manual_seed(0)


def cache_of(capacity: int) -> KeyValueCache:
    return KeyValueCache(TINY, 3, device=torch.device("cpu"), dtype=torch.float32, capacity_tokens=capacity)


def test_what_was_appended_comes_back_in_order_when_the_cache_grows() -> None:
    cache = cache_of(4)
    keys_BKSD = torch.randn(3, 2, 40, 16)
    for start, end in ((0, 3), (3, 4), (4, 17), (17, 18), (18, 40)):
        cache.reserve(end - start)
        for layer in range(2):
            k, v = cache.append(layer, keys_BKSD[:, :, start:end] + layer, -keys_BKSD[:, :, start:end])
            assert torch.equal(k, keys_BKSD[:, :, :end] + layer)
            assert torch.equal(v, -keys_BKSD[:, :, :end])
        cache.advance(end - start)
    assert cache.length == cache.capacity_tokens == 40


def test_a_cache_never_grows_beyond_the_context() -> None:
    cache = cache_of(30)
    cache.reserve(30)
    cache.advance(30)
    cache.reserve(5)
    assert cache.capacity_tokens == 40
    with pytest.raises(InputError, match="41 tokens do not fit: the model's context is 40 tokens"):
        cache.reserve(11)


def test_a_cache_can_be_cut_but_not_lengthened() -> None:
    cache = cache_of(30)
    cache.advance(10)
    cache.truncate(4)
    assert cache.length == 4
    with pytest.raises(InputError, match="holds 4 tokens"):
        cache.truncate(5)
