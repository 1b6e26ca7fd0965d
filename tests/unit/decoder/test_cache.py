"""The key-value cache: what goes in comes back, up to the context."""

from __future__ import annotations

import pytest
import torch

from megadec.common.errors import InputError
from megadec.decoder import cache as cache_module
from megadec.decoder.cache import KeyValueCache
from tests.support.decoders import tiny_shape


def cache_of(capacity: int, monkeypatch: pytest.MonkeyPatch) -> KeyValueCache:
    monkeypatch.setattr(cache_module, "FIRST_CAPACITY_TOKENS", capacity)
    shape = tiny_shape(max_position_embeddings=40)
    return KeyValueCache(shape, 3, device=torch.device("cpu"), dtype=torch.float32)


def test_what_was_appended_comes_back_in_order_when_the_cache_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cache = cache_of(4, monkeypatch)
    keys_BKSD = torch.randn(3, 2, 40, 16)
    for start, end in ((0, 3), (3, 4), (4, 17), (17, 18), (18, 40)):
        cache.reserve(end - start)
        for layer in range(2):
            k, v = cache.append(layer, keys_BKSD[:, :, start:end] + layer, -keys_BKSD[:, :, start:end])
            assert torch.equal(k, keys_BKSD[:, :, :end] + layer)
            assert torch.equal(v, -keys_BKSD[:, :, :end])
        cache.advance(end - start)
    assert cache.length == cache.capacity_tokens == 40


def test_a_cache_never_grows_beyond_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(30, monkeypatch)
    cache.reserve(30)
    cache.advance(30)
    cache.reserve(5)
    assert cache.capacity_tokens == 40
    with pytest.raises(InputError, match="41 tokens do not fit: the model's context is 40 tokens"):
        cache.reserve(11)
