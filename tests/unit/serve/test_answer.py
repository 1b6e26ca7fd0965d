"""Text is given whole: no half characters, nothing of a stop text, and the same in a stream as at once."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megadec.common.tokenizer import Tokenizer
from megadec.decoding.batch import BatchDecoder
from megadec.decoding.continuation import Continuation
from megadec.decoding.sampling import Sampling
from megadec.decoding.session import batched
from megadec.serve.answer import Answer, Piece, StopTexts
from tests.support.served import Recited, byte_ids

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
    shown += found.held
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    assert shown == (text[: min(ends)[1]] if ends else text)
    assert found.found == bool(ends)


def test_text_is_held_back_only_while_it_may_become_a_stop() -> None:
    stops = StopTexts(["\n用户："])
    assert [stops.push(text) for text in ("好的\n", "用", "心", "\n用户：你")] == ["好的", "", "\n用心", ""]
    assert stops.found


def pieces_of(tokenizer: Tokenizer, ids: Sequence[int], stops: Sequence[str] = (), most: int = 40) -> list[Piece]:
    model = Recited(tokenizer.vocabulary_size, [*ids, tokenizer.eos_id])
    continuation = Continuation([1], Sampling(most, 0.0), tokenizer.end_ids)
    answer = Answer(continuation, tokenizer, stops, lambda: None)
    decoder = BatchDecoder(batched(model))
    decoder.add(continuation)
    pieces: list[Piece] = []
    while not pieces or pieces[-1].reason is None:
        decoder.step()
        pieces.append(answer.turn())
    return pieces


def test_a_character_cut_by_the_limit_is_left_out(tokenizer: Tokenizer) -> None:
    pieces = pieces_of(tokenizer, byte_ids(tokenizer, "好𠮷"), most=6)
    assert [piece for piece in pieces if any(piece)] == [Piece("好"), Piece("", "length")]


class Late(list[int]):
    """Ids of which one more comes, by another thread, as soon as they have been read."""

    def __init__(self, ids: Sequence[int], then: Callable[[], None]) -> None:
        super().__init__(ids)
        self._then: Callable[[], None] | None = then

    def __getitem__(self, key: Any) -> Any:
        found, then = super().__getitem__(key), self._then
        self._then = None
        if then is not None:
            then()
        return found


def test_a_token_that_comes_while_an_answer_is_read_is_not_lost(tokenizer: Tokenizer) -> None:
    first, last = tokenizer.encode("河")[-1], tokenizer.encode("边")[-1]
    continuation = Continuation([1], Sampling(2, 0.0))
    continuation.ids = Late([first], lambda: continuation.take(last, None))
    answer = Answer(continuation, tokenizer, [], lambda: None)
    pieces = [answer.turn(), answer.turn()]
    assert pieces == [Piece(tokenizer.decode([first])), Piece(tokenizer.decode([last]), "length")]


@pytest.mark.parametrize("stop", ["河", "边的", "。", "后来的"])
def test_an_answer_ends_before_a_stop_text_and_gives_at_the_end_what_was_held_back(
    tokenizer: Tokenizer, stop: str
) -> None:
    text = "小林在河边的旧车站。后来"
    pieces = pieces_of(tokenizer, tokenizer.encode(text), [stop, "不在其中"])
    assert "".join(piece.text for piece in pieces) == text.split(stop)[0]
    assert pieces[-1].reason == "stop"
