"""Generation with a cache is the full forward pass, token by token."""

import pytest
import torch

from megadec.decoder.cache import KeyValueCache
from megadec.decoder.shape import DecoderShape
from megadec.decoding.continuation import Continuation
from megadec.decoding.generate import continue_alone
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from tests.support.decoders import VARIANTS, decoder_of


@pytest.mark.parametrize("shape", VARIANTS)
@pytest.mark.parametrize("steps", [[1] * 40, [39, 1], [17, 1, 1, 20, 1], [40]])
def test_logits_with_a_cache_are_those_of_the_full_pass(
    shape: DecoderShape, steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megadec.decoder.cache.FIRST_CAPACITY_TOKENS", 3)
    decoder = decoder_of(shape)
    ids = torch.randint(0, 97, (2, 40))
    cache = KeyValueCache(shape, 2, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        cached = torch.cat([decoder(part, cache=cache) for part in ids.split(steps, dim=1)], dim=1)
        whole = decoder(ids)
        torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(decoder(ids, last_only=True), whole[:, -1:])
    assert cache.length == 40


@pytest.mark.parametrize("shape", VARIANTS)
def test_greedy_ids_are_those_of_full_passes(shape: DecoderShape) -> None:
    decoder = decoder_of(shape)
    ids = [1, 50, 3]
    with torch.no_grad():
        for _ in range(40):
            ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    found = list(
        continue_alone(PagedDecoder(decoder), Continuation(ids[:3], Sampling(max_new_tokens=40, temperature=0)))
    )
    assert found == ids[3:]
    assert len(set(found)) > 3, "a decoder that repeats itself proves little"
