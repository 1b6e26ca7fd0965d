"""How tokens are drawn, when generation stops, and how text streams."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.model import Decoder
from megadec.decoder.shape import DecoderShape
from megadec.decoding.generate import (
    GREEDY,
    Sampling,
    draw,
    generate_ids,
    generate_text,
    kept_probabilities,
    penalise,
)
from tests.support.decoders import initialize


def decoder_of(vocabulary: int) -> Decoder:
    decoder = Decoder(
        DecoderShape(
            vocabulary_size=vocabulary,
            hidden_size=64,
            layers=2,
            heads=4,
            kv_heads=2,
            head_size=16,
            intermediate_size=128,
            max_position_embeddings=64,
            initializer_std=0.2,
        )
    )
    initialize(decoder, 4)
    return decoder


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


GREEDY_SHORT = Sampling(max_new_tokens=40, temperature=0)
LOGITS = torch.tensor([0.1, 2.0, -1.0, 1.5, 0.0], dtype=torch.float64)


def test_top_k_of_one_is_greedy_at_any_temperature() -> None:
    torch.manual_seed(0)
    for logits in torch.randn(20, 50, dtype=torch.float64):
        sampling = Sampling(temperature=5.0, top_k=1, top_p=1.0)
        assert draw(logits, [], sampling, generator()) == draw(logits, [], GREEDY, generator())


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_top_k_keeps_the_k_likeliest_in_their_proportion(k: int) -> None:
    kept = kept_probabilities(LOGITS, k, 1.0)
    likeliest = LOGITS.argsort(descending=True)[:k]
    expected = torch.zeros(5, dtype=torch.float64)
    expected[likeliest] = LOGITS[likeliest].softmax(-1)
    torch.testing.assert_close(kept, expected)


def test_top_k_keeps_exactly_k_among_equal_logits() -> None:
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
    penalised = penalise(LOGITS, [1, 2, 2, 2], 2.0)
    assert penalised.tolist() == [0.1, 1.0, -2.0, 1.5, 0.0]
    assert torch.equal(LOGITS, before)


def test_a_strong_penalty_makes_greedy_generation_repeat_nothing() -> None:
    decoder = decoder_of(97)
    plain = list(generate_ids(decoder, [5], Sampling(max_new_tokens=60, temperature=0)))
    penalised = list(generate_ids(decoder, [5], Sampling(max_new_tokens=60, temperature=0, repetition_penalty=1e9)))
    assert len(set(plain)) < 60
    assert len({5, *penalised}) == 61


def test_one_seed_gives_one_text_and_another_seed_another() -> None:
    decoder = decoder_of(97)
    first, again, other = (list(generate_ids(decoder, [5], Sampling(30, 1.5, seed=seed))) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_generation_ends_before_the_end_of_text() -> None:
    decoder = decoder_of(97)
    ids = list(generate_ids(decoder, [5], Sampling(max_new_tokens=20, temperature=0)))
    end = ids[7]
    assert list(generate_ids(decoder, [5], Sampling(max_new_tokens=20, temperature=0), end)) == ids[: ids.index(end)]


@pytest.mark.parametrize(
    ("prompt", "new_tokens", "message"),
    [
        ([], 5, "the prompt has no tokens"),
        ([97], 5, "the prompt holds id 97; the model's vocabulary has 97 ids"),
        ([-1], 5, "the prompt holds id -1"),
        (
            [1] * 60,
            5,
            "a prompt of 60 tokens and sampling.max_new_tokens=5 do not fit the model's context of 64 tokens",
        ),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused_at_once(prompt: list[int], new_tokens: int, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        generate_ids(decoder_of(97), prompt, Sampling(max_new_tokens=new_tokens))


def test_a_context_can_be_filled_to_the_last_token() -> None:
    assert len(list(generate_ids(decoder_of(97), [1] * 60, Sampling(max_new_tokens=4)))) == 4


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"max_new_tokens": 0},
    ],
)
def test_sampling_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"sampling.{next(iter(values))}="):
        Sampling(**values)


class Recital(Decoder):
    """A decoder whose likeliest next id is the next of a given list, whatever it has seen."""

    def __init__(self, vocabulary: int, ids: list[int]) -> None:
        super().__init__(decoder_of(vocabulary).shape)
        self.ids = iter(ids)

    def forward(self, ids_BS: Tensor, **_: Any) -> Tensor:
        logits = torch.zeros(1, 1, self.shape.vocabulary_size)
        logits[..., next(self.ids)] = 1
        return logits


def byte_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    by_byte = {tokenizer.piece_bytes(i)[0]: i for i in range(tokenizer.vocabulary_size) if tokenizer.is_byte[i]}
    return [by_byte[byte] for byte in text.encode("utf-8")]


def test_text_streams_in_whole_characters_even_through_byte_pieces(tiny_tokenizer_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    ids = [*tokenizer.encode("小林"), *byte_ids(tokenizer, "龘é𠮷a"), *tokenizer.encode("老周"), tokenizer.eos_id, 5]
    pieces = list(generate_text(Recital(tokenizer.vocabulary_size, ids), tokenizer, "清晨", GREEDY_SHORT))
    assert "".join(pieces) == "小林龘é𠮷a老周"
    assert {"龘", "é", "𠮷", "a"} <= set(pieces)


def test_a_character_cut_by_the_token_limit_is_left_out(tiny_tokenizer_path: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_path)
    ids = byte_ids(tokenizer, "龘龘")[:5]
    sampling = Sampling(max_new_tokens=5, temperature=0)
    assert list(generate_text(Recital(tokenizer.vocabulary_size, ids), tokenizer, "", sampling)) == ["龘"]
