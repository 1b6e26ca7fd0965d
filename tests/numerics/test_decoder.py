"""Laws of the whole decoder: documents do not see each other, packing changes nothing, first values are sane."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from megadec.common.errors import InputError
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from tests.support.decoders import VARIANTS, decoder_of

SHAPE = VARIANTS[0]
SPLIT = 19
DOCUMENTS = torch.tensor([[0] * SPLIT + [1] * (41 - SPLIT)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", VARIANTS)
def test_changing_document_a_leaves_the_logits_of_document_b_unchanged(shape: DecoderShape, dtype: torch.dtype) -> None:
    decoder = decoder_of(shape, dtype=dtype)
    ids = torch.randint(0, 97, (1, 41))
    changed = ids.clone()
    changed[:, :SPLIT] = (ids[:, :SPLIT] + 1) % 97
    with torch.no_grad():
        before, after = (decoder(x, documents_BS=DOCUMENTS) for x in (ids, changed))
        assert torch.equal(before[:, SPLIT:], after[:, SPLIT:])
        assert not torch.allclose(before[:, :SPLIT], after[:, :SPLIT])
        joined, joined_changed = (decoder(x) for x in (ids, changed))
    assert not torch.allclose(joined[:, SPLIT:], joined_changed[:, SPLIT:]), "without boundaries it must be seen"


@pytest.mark.parametrize("shape", VARIANTS)
def test_packed_documents_have_the_logits_they_have_alone(shape: DecoderShape) -> None:
    decoder = decoder_of(shape)
    lengths = [[7, 1, 20, 13], [41], [40, 1]]
    ids = torch.randint(0, 97, (3, 41))
    documents = torch.tensor([[n for n, length in enumerate(row) for _ in range(length)] for row in lengths])
    with torch.no_grad():
        packed = decoder(ids, documents_BS=documents.int())
        for row, parts in enumerate(lengths):
            for part_ids, part_logits in zip(ids[row].split(parts), packed[row].split(parts), strict=True):
                torch.testing.assert_close(part_logits, decoder(part_ids[None])[0], rtol=1e-4, atol=1e-5)


def test_a_document_that_goes_on_from_another_sequence_keeps_the_positions_given() -> None:
    decoder = decoder_of(SHAPE)
    ids = torch.randint(0, 97, (1, 10))
    with torch.no_grad():
        from_zero = decoder(ids)
        # Rotary scores depend on distances only: the same document further on gives the same logits.
        further_on = decoder(ids, positions_BS=torch.arange(30, 40)[None])
        stretched = decoder(ids, positions_BS=torch.arange(0, 30, 3)[None])
    torch.testing.assert_close(from_zero, further_on, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(from_zero, stretched, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("shape", VARIANTS)
def test_the_summed_loss_is_the_cross_entropy_of_the_logits(shape: DecoderShape) -> None:
    decoder = decoder_of(shape)
    ids, targets = torch.randint(0, 97, (2, 2, 41)).unbind(0)
    weights = torch.rand(2, 41)
    documents = DOCUMENTS.expand(2, -1)
    loss = decoder(ids, documents_BS=documents, targets_BS=targets, weights_BS=weights)
    logits = decoder(ids, documents_BS=documents).detach().double()
    nats = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    assert loss.item() == pytest.approx(float((nats * weights.flatten()).sum()), rel=1e-5)


@pytest.mark.parametrize("name", ["1m", "5m", "10m"])
def test_a_fresh_decoder_is_nearly_uniform(name: str) -> None:
    shape = DecoderShape.from_preset(name, vocabulary_size=2000)
    ids, targets = torch.randint(0, 2000, (2, 2, 64)).unbind(0)
    with torch.no_grad():
        nats = decoder_of(shape)(ids, targets_BS=targets).item() / targets.numel()
    assert nats == pytest.approx(math.log(2000), abs=0.15)


def test_tied_embeddings_are_one_parameter_with_both_gradients() -> None:
    decoder = decoder_of(SHAPE)
    assert decoder.lm_head.weight is decoder.embed_tokens.weight
    assert "lm_head.weight" not in dict(decoder.named_parameters())
    ids, targets = torch.randint(0, 97, (2, 1, 20)).unbind(0)
    decoder(ids, targets_BS=targets).backward()
    untied = Decoder(replace(SHAPE, tied_embeddings=False))
    untied.load_state_dict(decoder.state_dict())
    untied(ids, targets_BS=targets).backward()
    embedding, head, both = (x.weight.grad for x in (untied.embed_tokens, untied.lm_head, decoder.embed_tokens))
    assert embedding is not None
    assert head is not None
    torch.testing.assert_close(both, embedding + head)


def test_a_sequence_longer_than_the_context_is_refused() -> None:
    with pytest.raises(InputError, match="a sequence of 65 tokens does not fit: the model's context is 64 tokens"):
        decoder_of(SHAPE)(torch.zeros(1, 65, dtype=torch.int64))
