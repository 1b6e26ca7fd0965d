"""How far the key-value cache grows; that what goes in comes back is in tests/numerics/test_generation.py."""

import pytest
import torch

from megadec.common.errors import InputError
from megadec.decoder import cache as cache_module
from megadec.decoder.cache import KeyValueCache
from tests.support.decoders import tiny_shape


def test_a_cache_never_grows_beyond_the_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "FIRST_CAPACITY_TOKENS", 30)
    shape = tiny_shape(max_position_embeddings=40)
    cache = KeyValueCache(shape, 3, device=torch.device("cpu"), dtype=torch.float32)
    cache.reserve(30)
    cache.advance(30)
    assert cache.capacity_tokens == 30
    cache.reserve(5)
    assert cache.capacity_tokens == 40
    with pytest.raises(InputError, match="a sequence of 41 tokens does not fit: the model's context is 40 tokens"):
        cache.reserve(11)
