"""Many sequences in one forward pass are each of them alone, to the last bit of a text."""

import copy
import random

import pytest
import torch

from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoding.batch import PART_TOKENS, BatchDecoder
from megadec.decoding.continuation import Continuation
from megadec.decoding.packed import WeightDtype
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import Feed
from tests.support.decoders import VARIANTS, decoder_of, tiny_shape

LONG = tiny_shape(max_position_embeddings=512, initializer_std=0.2)


def paged(dtype: WeightDtype = "float32", sequences: int = 16) -> PagedDecoder:
    return PagedDecoder(decoder_of(LONG), dtype, sequences)


def requests(count: int, seed: int = 0) -> list[Continuation]:
    """Prompts of 1 to 300 tokens, some with the same beginning, drawn in different ways."""
    chance = random.Random(seed)
    common = [chance.randrange(97) for _ in range(2 * PART_TOKENS)]
    found = []
    for number in range(count):
        own = [chance.randrange(97) for _ in range(chance.randint(1, 40))]
        prompt = common[: chance.choice((0, 0, PART_TOKENS, 2 * PART_TOKENS))] + own
        how = Sampling(chance.randint(1, 60), chance.choice((0.0, 0.8, 1.3)), top_p=0.9, seed=number)
        found.append(Continuation(prompt, how, end_ids={7}, logprobs=2))
    return found


def run(model: PagedDecoder, continuations: list[Continuation], running: int) -> BatchDecoder:
    """All of them, some coming while others are under way."""
    decoder, chance, coming = BatchDecoder(model, running), random.Random(9), list(continuations)
    while not all(one.done for one in continuations):
        for _ in range(chance.randint(0, 3)):
            if coming:
                decoder.add(coming.pop(0))
        decoder.step()
    assert [one.error for one in continuations] == [None] * len(continuations)
    assert model.cache_use().used_blocks == 0
    return decoder


@pytest.mark.parametrize("shape", VARIANTS)
def test_logits_over_pages_are_those_of_the_full_pass_in_any_mixture_of_feeds(shape: DecoderShape) -> None:
    decoder = decoder_of(shape)
    whole = copy.deepcopy(decoder)
    model, chance = PagedDecoder(decoder), random.Random(1)
    rows = [[chance.randrange(97) for _ in range(tokens)] for tokens in (60, 33, 1, 47)]
    sequences = [model.begin(ids, 1) for ids in rows]
    fed, found = [0] * len(rows), [[] for _ in rows]
    while any(done < len(ids) for done, ids in zip(fed, rows, strict=True)):
        feeds, owners = [], []
        for row, ids in enumerate(rows):
            if fed[row] < len(ids) and chance.random() < 0.8:
                part = ids[fed[row] : fed[row] + chance.choice((1, 1, 2, 13))]
                feeds.append(Feed(sequences[row], part, len(part)))
                owners.append(row)
                fed[row] += len(part)
        if not feeds:
            continue
        logits = model.forward(feeds)
        for row, feed in zip(owners, feeds, strict=True):
            found[row].append(logits[: feed.wanted])
            logits = logits[feed.wanted :]
    with torch.no_grad():
        for ids, own in zip(rows, found, strict=True):
            torch.testing.assert_close(torch.cat(own), whole(torch.tensor([ids]))[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_text_is_the_same_alone_and_among_others(dtype: WeightDtype) -> None:
    together, alone = requests(24), requests(24)
    run(paged(dtype=dtype), together, running=16)
    for one in alone:
        run(paged(dtype=dtype), [one], running=1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.finished for one in together] == [one.finished for one in alone]
    assert [one.scores for one in together] == [one.scores for one in alone]


def test_a_text_is_the_same_where_the_cache_is_too_small_for_all() -> None:
    together, alone = requests(12, seed=4), requests(12, seed=4)
    decoder = run(paged(sequences=1), together, running=12)
    assert decoder.preempted > 3
    for one in alone:
        run(paged(), [one], running=1)
    assert [one.ids for one in together] == [one.ids for one in alone]
    assert [one.scores for one in together] == [one.scores for one in alone]


def test_scores_of_a_prompt_are_those_of_the_full_pass_and_nothing_is_generated() -> None:
    decoder = decoder_of(LONG)
    whole: Decoder = copy.deepcopy(decoder)
    chance = random.Random(2)
    rows = [[chance.randrange(97) for _ in range(tokens)] for tokens in (300, 2, 128, 129)]
    scored = [Continuation(ids, Sampling(0), logprobs=3, prompt_logprobs=True) for ids in rows]
    run(PagedDecoder(decoder), scored, running=4)
    for ids, one in zip(rows, scored, strict=True):
        assert (one.ids, one.finished, len(one.prompt_scores)) == ([], "length", len(ids) - 1)
        with torch.no_grad():
            wanted = whole(torch.tensor([ids]))[0].log_softmax(-1)
        own = torch.tensor([score.log_probability for score in one.prompt_scores])
        known = wanted[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        torch.testing.assert_close(own, known, rtol=1e-4, atol=1e-4)
        assert [place for place, _ in one.prompt_scores[0].top] == wanted[0].topk(3).indices.tolist()


def test_int8_weights_stay_near_the_model() -> None:
    ids = [random.Random(5).randrange(97) for _ in range(100)]
    found = []
    for dtype in ("float32", "int8"):
        model = paged(dtype=dtype)  # type: ignore[arg-type]
        found.append(model.forward([Feed(model.begin(ids, 1), ids, len(ids))]).log_softmax(-1))
    difference = (found[0].exp() * (found[0] - found[1])).sum(-1)
    assert 0 < float(difference.mean()) < 0.02
