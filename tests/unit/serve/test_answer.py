"""Text is given whole: no half characters, nothing of a stop text, and the same in a stream as at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from megadec.common.errors import CheckpointError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.generate import PROMPT_PART_TOKENS, Continuation, Sampling, generate_text
from megadec.serve.answer import Answer, Classification, End, Event, Labelled, Piece, StopTexts
from megadec.serve.limits import RequestError

TEXTS = st.text("ab停。", max_size=30)


@given(TEXTS, st.lists(st.text("ab停。", min_size=1, max_size=4), max_size=3), st.lists(st.integers(0, 30)))
def test_text_ends_before_the_stop_that_is_whole_first_however_it_comes(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    found, shown = StopTexts(stops), ""
    edges = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    for start, end in itertools.pairwise(edges):
        if not found.found:
            shown += found.push(text[start:end])
    shown += found.flush()
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert shown == (text[: min(ends)[1]] if ends else text)
    assert found.found == bool(ends)


def test_text_is_held_back_only_while_it_may_become_a_stop() -> None:
    stops = StopTexts(["\n用户："])
    assert stops.push("好的\n") == "好的"
    assert stops.push("用") == ""
    assert stops.push("心") == "\n用心"
    assert stops.push("\n用户：你") == ""
    assert stops.found


class Recited:
    """A model whose likeliest next id is the next of a list, and a note of what it was fed."""

    max_position_embeddings = 2000

    def __init__(self, vocabulary_size: int, ids: Sequence[int]) -> None:
        self.vocabulary_size = vocabulary_size
        self.fed: list[int] = []
        self._ids = iter(ids)

    def session(self) -> Recited:
        return self

    def feed(self, ids: Sequence[int]) -> Tensor:
        self.fed.append(len(ids))
        logits_V = torch.zeros(self.vocabulary_size, dtype=torch.float64)
        if sum(self.fed) >= self.prompt_tokens:
            logits_V[next(self._ids)] = 1
        return logits_V

    prompt_tokens = 1


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_path: Path) -> Tokenizer:
    return Tokenizer.load(tiny_tokenizer_path)


def byte_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    by_byte = {tokenizer.piece_bytes(i)[0]: i for i in range(tokenizer.vocabulary_size) if tokenizer.is_byte[i]}
    return [by_byte[byte] for byte in text.encode("utf-8")]


def events_of(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str] = (), most: int = 40) -> list[Event]:
    model = Recited(tokenizer.vocabulary_size, [*ids, tokenizer.eos_id])
    continuation = Continuation(model, [1], Sampling(most, 0.0), tokenizer.eos_id)
    events: list[Event] = []
    answer = Answer(continuation, tokenizer, stops, events.append, lambda: None)
    while not answer.turn():
        pass
    return events


def text_of(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Piece))


def test_a_character_of_several_tokens_is_given_as_one(tokenizer: Tokenizer) -> None:
    events = events_of(tokenizer, byte_ids(tokenizer, "𠮷é。"))
    assert events == [Piece("𠮷"), Piece("é"), Piece("。"), End("stop")]


def test_a_character_cut_by_the_limit_is_left_out(tokenizer: Tokenizer) -> None:
    assert events_of(tokenizer, byte_ids(tokenizer, "好𠮷"), most=6) == [Piece("好"), End("length")]


@pytest.mark.parametrize("stop", ["河", "边的", "。"])
def test_an_answer_ends_before_a_stop_text(tokenizer: Tokenizer, stop: str) -> None:
    text = "小林在河边的旧车站。后来"
    events = events_of(tokenizer, tokenizer.encode(text), [stop, "不在其中"])
    assert text_of(events) == text[: text.index(stop)]
    assert events[-1] == End("stop")


def test_what_was_held_back_for_a_stop_is_given_at_the_end(tokenizer: Tokenizer) -> None:
    text = "小林在河边"
    assert text_of(events_of(tokenizer, tokenizer.encode(text), ["河边的人"])) == text


def test_an_answer_is_the_text_that_the_command_line_gives(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("雨停之后，船长在码头数了二十七颗星星。")
    model = Recited(tokenizer.vocabulary_size, [*ids, tokenizer.eos_id])
    wanted = "".join(generate_text(model, tokenizer, "", Sampling(60, 0.0)))
    assert text_of(events_of(tokenizer, ids, most=60)) == wanted


def test_a_long_prompt_is_read_in_parts_with_turns_for_others_between(tokenizer: Tokenizer) -> None:
    prompt = [5] * (2 * PROMPT_PART_TOKENS + 3)
    model = Recited(tokenizer.vocabulary_size, [7, 8, 9])
    model.prompt_tokens = len(prompt)
    continuation = Continuation(model, prompt, Sampling(2, 0.0))
    assert [continuation.advance() for _ in range(4)] == [None, None, 7, 8]
    assert model.fed == [PROMPT_PART_TOKENS, PROMPT_PART_TOKENS, 3, 1]
    assert continuation.finished == "length"


def test_ids_that_the_tokenizer_does_not_have_are_never_drawn(tokenizer: Tokenizer) -> None:
    """A model may have more rows than its tokenizer has pieces."""
    model = Recited(tokenizer.vocabulary_size + 40, [tokenizer.vocabulary_size + 3])
    continuation = Continuation(model, [1], Sampling(1, 0.0), None, tokenizer.vocabulary_size)
    assert 0 <= (continuation.advance() or 0) < tokenizer.vocabulary_size


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RequestError("late", status=504), 504, "late"),
        (InputError("texts[3] is too long"), 400, "texts[3] is too long"),
        (CheckpointError("/srv/secret is cut"), 500, "the server failed"),
        (ZeroDivisionError("secret"), 500, "the server failed"),
    ],
)
def test_a_client_is_told_what_it_did_and_not_what_broke(
    tokenizer: Tokenizer, error: Exception, status: int, words: str
) -> None:
    events: list[Event] = []
    model = Recited(tokenizer.vocabulary_size, [])
    Answer(Continuation(model, [1], Sampling(1)), tokenizer, (), events.append, lambda: None).fail(error)
    (seen,) = events
    assert isinstance(seen, RequestError)
    assert seen.status == status
    assert words in str(seen)
    assert "secret" not in str(seen)


class Lengths:
    """Gives each text its own probability, and notes how many texts came at once."""

    labels = ("long", "short")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def classify(self, texts: Sequence[str]) -> list[Mapping[str, float]]:
        self.batches.append(len(texts))
        return [{"long": len(text) / 100, "short": 1 - len(text) / 100} for text in texts]


def test_texts_are_classified_a_few_a_turn_and_come_back_in_order() -> None:
    classifier, events = Lengths(), []
    job = Classification(classifier, ["字" * size for size in range(30)], events.append)
    turns = 1
    while not job.turn():
        turns += 1
    assert turns == len(classifier.batches) > 2
    assert [one["long"] for one in events[0].probabilities] == [size / 100 for size in range(30)]
    assert isinstance(events[0], Labelled)
