"""How tokens are drawn, when generation stops, and how text streams."""

import re
from collections import Counter

import pytest
import torch

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoding.generate import (
    PROMPT_PART_TOKENS,
    Continuation,
    Sampling,
    draw,
    generate_text,
    kept_probabilities,
    penalize,
)
from megadec.decoding.session import DecoderModel
from tests.support.decoders import initialize
from tests.support.served import Recited, byte_ids
from tests.support.sources import TINY_SHAPE

SHAPE = {**TINY_SHAPE, "vocabulary_size": 97, "max_position_embeddings": 64, "initializer_std": 0.2}


@pytest.fixture(scope="module")
def model() -> DecoderModel:
    decoder = Decoder(DecoderShape.from_mapping(SHAPE))
    initialize(decoder, 4)
    return DecoderModel(decoder)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


GREEDY = Sampling(max_new_tokens=40, temperature=0)
LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.5, 0.0], dtype=torch.float64)


def test_top_k_of_one_is_greedy_at_any_temperature() -> None:
    torch.manual_seed(0)
    for logits in torch.randn(20, 50, dtype=torch.float64):
        sampling = Sampling(temperature=5.0, top_k=1, top_p=1.0)
        assert draw(logits, [], sampling, generator()) == draw(logits, [], GREEDY, generator())


def test_top_k_keeps_the_k_likeliest_in_their_proportion_and_exactly_k_among_equal_ones() -> None:
    for k in (1, 2, 3, 5, 9):
        likeliest = LOGITS.argsort(descending=True)[:k]
        expected = torch.zeros(5, dtype=torch.float64)
        expected[likeliest] = LOGITS[likeliest].softmax(-1)
        torch.testing.assert_close(kept_probabilities(LOGITS, k, 1.0), expected)
    assert kept_probabilities(torch.zeros(10, dtype=torch.float64), 3, 1.0).tolist() == [1 / 3] * 3 + [0] * 7


@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.8, 0.95, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p: float) -> None:
    probabilities = LOGITS.softmax(-1)
    kept = kept_probabilities(LOGITS, 0, p)
    inside = probabilities[kept > 0]
    assert float(inside.sum()) >= p
    assert float(inside.sum() - inside.min()) < p
    assert bool((inside.min() >= probabilities[kept == 0]).all())
    torch.testing.assert_close(kept.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_draws_follow_the_tempered_probabilities() -> None:
    sampling = Sampling(temperature=2.0, top_p=1.0)
    chance = generator()
    counts = Counter(draw(LOGITS, [], sampling, chance) for _ in range(4000))
    for index, probability in enumerate((LOGITS / 2).softmax(-1).tolist()):
        assert counts[index] / 4000 == pytest.approx(probability, abs=4 * (probability / 4000) ** 0.5)


def test_a_penalty_lowers_seen_logits_of_either_sign_once_and_no_others() -> None:
    before = LOGITS.clone()
    penalized = penalize(LOGITS, [1, 2, 2, 2], 2.0)
    assert penalized.tolist() == [0.1, 1.0, -2.0, 1.5, 0.0]
    assert torch.equal(LOGITS, before)


def test_a_strong_penalty_makes_greedy_generation_repeat_nothing(model: DecoderModel) -> None:
    plain, penalized = (
        list(Continuation(model, [5], Sampling(60, 0.0, repetition_penalty=penalty))) for penalty in (1.0, 1e9)
    )
    assert len(set(plain)) < 60
    assert len({5, *penalized}) == 61


def test_one_seed_gives_one_text_and_another_seed_another(model: DecoderModel) -> None:
    first, again, other = (list(Continuation(model, [5], Sampling(30, 1.5, seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_generation_ends_before_the_end_of_text_and_may_fill_the_context(model: DecoderModel) -> None:
    ids = list(Continuation(model, [5], Sampling(20, 0.0)))
    ended = Continuation(model, [5], Sampling(20, 0.0), end_ids={ids[7]})
    assert list(ended) == ids[: ids.index(ids[7])]
    assert ended.finished == "stop"
    assert len(list(Continuation(model, [1] * 60, Sampling(4)))) == 4


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "there are no tokens to feed"),
        ([97], "id 97 is not one of the model's 97 ids"),
        ([-1], "id -1 is not"),
        ([1] * 65, "65 tokens do not fit"),
        ([1] * 60, "a prompt of 60 tokens and sampling.max_new_tokens=5 do not fit the model's context of 64 tokens"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused_at_once(
    model: DecoderModel, prompt: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        Continuation(model, prompt, Sampling(max_new_tokens=5))


def test_a_long_prompt_is_read_in_parts_with_turns_for_others_between() -> None:
    prompt = [5] * (2 * PROMPT_PART_TOKENS + 3)
    model = Recited(600, [7, 8, 9], len(prompt))
    continuation = Continuation(model, prompt, Sampling(2, 0.0))
    assert [continuation.advance() for _ in range(4)] == [None, None, 7, 8]
    assert model.fed == [PROMPT_PART_TOKENS, PROMPT_PART_TOKENS, 3, 1]
    assert continuation.finished == "length"


def test_ids_that_the_tokenizer_does_not_have_are_never_drawn() -> None:
    """A model may have more rows than its tokenizer has pieces."""
    (drawn,) = Continuation(Recited(640, [603]), [1], Sampling(1), drawn_ids=600)
    assert 0 <= drawn < 600


def test_sampling_out_of_range_is_refused() -> None:
    outside = {"temperature": (-1, float("nan")), "top_k": (-1,), "top_p": (0, 1.1), "max_new_tokens": (0,)}
    for name, values in outside.items():
        for value in values:
            with pytest.raises(ConfigError, match=f"sampling.{name}="):
                Sampling(**{name: value})


def test_text_streams_in_whole_characters_without_one_that_the_limit_cuts(tokenizer: Tokenizer) -> None:
    ids = [*tokenizer.encode("小林"), *byte_ids(tokenizer, "龘é𠮷a"), *tokenizer.encode("老周"), tokenizer.eos_id, 5]
    prompt_tokens = 1 + len(tokenizer.encode("清晨"))
    pieces = list(generate_text(Recited(tokenizer.vocabulary_size, ids, prompt_tokens), tokenizer, "清晨", GREEDY))
    assert "".join(pieces) == "小林龘é𠮷a老周"
    assert {"龘", "é", "𠮷", "a"} <= set(pieces)
    model = Recited(tokenizer.vocabulary_size, byte_ids(tokenizer, "龘龘"))
    assert list(generate_text(model, tokenizer, "", Sampling(5, 0.0))) == ["龘"]
