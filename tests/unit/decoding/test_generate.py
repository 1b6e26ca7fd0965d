"""When generation stops, and how text streams."""

import re
from collections.abc import Iterator

import pytest

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoding.batch import PART_TOKENS, BatchDecoder
from megadec.decoding.continuation import Continuation
from megadec.decoding.generate import continue_alone, generate_text
from megadec.decoding.paged import PagedDecoder
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import batched
from tests.support.decoders import initialize
from tests.support.served import Recited, byte_ids
from tests.support.sources import TINY_SHAPE

SHAPE = {**TINY_SHAPE, "vocabulary_size": 97, "max_position_embeddings": 64, "initializer_std": 0.2}


@pytest.fixture(scope="module")
def model() -> PagedDecoder:
    decoder = Decoder(DecoderShape.from_mapping(SHAPE))
    initialize(decoder, 4)
    return PagedDecoder(decoder)


GREEDY = Sampling(max_new_tokens=40, temperature=0)


def continued(model: PagedDecoder, prompt: list[int], sampling: Sampling) -> Iterator[int]:
    return continue_alone(model, Continuation(prompt, sampling))


def test_a_strong_penalty_makes_greedy_generation_repeat_nothing(model: PagedDecoder) -> None:
    plain, penalized = (
        list(continued(model, [5], Sampling(60, 0.0, repetition_penalty=penalty))) for penalty in (1.0, 1e9)
    )
    assert len(set(plain)) < 60
    assert len({5, *penalized}) == 61


def test_one_seed_gives_one_text_and_another_seed_another(model: PagedDecoder) -> None:
    first, again, other = (list(continued(model, [5], Sampling(30, 1.5, seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_generation_ends_before_the_end_of_text_and_may_fill_the_context(model: PagedDecoder) -> None:
    ids = list(continued(model, [5], Sampling(20, 0.0)))
    ended = Continuation([5], Sampling(20, 0.0), end_ids={ids[7]})
    assert list(continue_alone(model, ended)) == ids[: ids.index(ids[7])]
    assert ended.finished == "stop"
    assert len(list(continued(model, [1] * 60, Sampling(4)))) == 4


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
    model: PagedDecoder, prompt: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        continued(model, prompt, Sampling(max_new_tokens=5))


def test_a_long_prompt_is_read_in_parts_with_steps_for_others_between() -> None:
    prompt = [5] * (2 * PART_TOKENS + 3)
    model = Recited(600, [7, 8, 9], len(prompt))
    continuation = Continuation(prompt, Sampling(2, 0.0))
    decoder = BatchDecoder(batched(model))
    decoder.add(continuation)
    assert [(decoder.step(), list(continuation.ids))[1] for _ in range(4)] == [[], [], [7], [7, 8]]
    assert model.fed == [PART_TOKENS, PART_TOKENS, 3, 1]
    assert continuation.finished == "length"


def test_ids_that_the_tokenizer_does_not_have_are_never_drawn() -> None:
    """A model may have more rows than its tokenizer has pieces."""
    (drawn,) = continue_alone(Recited(640, [603]), Continuation([1], Sampling(1), drawn_ids=600))
    assert 0 <= drawn < 600


def test_sampling_out_of_range_is_refused() -> None:
    outside = {"temperature": (-1, float("nan")), "top_k": (-1,), "top_p": (0, 1.1), "max_new_tokens": (-1,)}
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
