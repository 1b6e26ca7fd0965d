"""The two kinds of work that the scheduler turns: an answer token by token, a classification a few texts at a time.

In: a continuation, or texts. Out: events through `give`, which is called in the computing thread. Text is held back
while it is part of a character or may be the beginning of a stop text, so a stream is a few characters late and never
takes anything back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from megadec.common.errors import REQUEST_WRONG, MegadecError
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.generate import Continuation, Finish
from megadec.decoding.session import TextClassifier
from megadec.serve.limits import RequestError

TEXTS_PER_TURN = 8


@dataclass(frozen=True)
class Piece:
    """Some more whole characters."""

    text: str


@dataclass(frozen=True)
class End:
    """The answer is complete."""

    reason: Finish


@dataclass(frozen=True)
class Labelled:
    """The probabilities of all texts, label -> probability."""

    probabilities: Sequence[Mapping[str, float]]


Event: TypeAlias = Piece | End | Labelled | RequestError
Give: TypeAlias = Callable[[Event], None]


class StopTexts:
    """Cuts a stream of text before the first stop text to be whole; holds back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be given away now that `text` has come."""
        self._held += text
        places = [(self._held.find(stop), stop) for stop in self._stops]
        # The one that is whole first, and of those the longest: the same however the text is cut into pieces.
        ends = [(place + len(stop), place) for place, stop in places if place >= 0]
        if ends:
            self.found = True
            given, self._held = self._held[: min(ends)[1]], ""
            return given
        keep = max((_beginning(self._held, stop) for stop in self._stops), default=0)
        given, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return given

    def flush(self) -> str:
        """What was held back when no more text comes."""
        given, self._held = self._held, ""
        return given


def _beginning(text: str, stop: str) -> int:
    """The longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class Answer:
    """A continuation as text. `count` is called for each token."""

    def __init__(
        self,
        continuation: Continuation,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        give: Give,
        count: Callable[[], None],
    ) -> None:
        self._continuation = continuation
        self._text = tokenizer.stream()
        self._stops = StopTexts(stops)
        self._give = give
        self._count = count
        self._asked = time.monotonic()
        self._first_token: float | None = None
        self._last_token = 0.0
        self.tokens = 0

    @property
    def first_token_seconds(self) -> float | None:
        """From the request to its first token; None where there was none."""
        return None if self._first_token is None else self._first_token - self._asked

    @property
    def tokens_per_second(self) -> float | None:
        """Behind the first token; None for an answer of fewer than two."""
        if self._first_token is None or self.tokens < 2 or self._last_token <= self._first_token:
            return None
        return (self.tokens - 1) / (self._last_token - self._first_token)

    def turn(self) -> bool:
        """One part of the prompt or one token; gives the text that became whole."""
        next_id = self._continuation.advance()
        if next_id is not None:
            self._note_token()
            self._say(self._stops.push(self._text.push(next_id)))
            if self._stops.found:
                self._give(End("stop"))
                return True
        if self._continuation.finished is None:
            return False
        # A character that the limit cut in the middle is left out.
        self._say(self._stops.flush())
        self._give(End(self._continuation.finished))
        return True

    def fail(self, error: Exception) -> None:
        """Give the error instead of the rest."""
        self._give(_as_seen(error))

    def _note_token(self) -> None:
        self.tokens += 1
        self._last_token = time.monotonic()
        self._first_token = self._first_token or self._last_token
        self._count()

    def _say(self, text: str) -> None:
        if text:
            self._give(Piece(text))


class Classification:
    """Texts through a classifier; gives Labelled once, when all are done."""

    def __init__(self, classifier: TextClassifier, texts: Sequence[str], give: Give) -> None:
        self._classifier = classifier
        self._texts = tuple(texts)
        self._give = give
        self._done: list[Mapping[str, float]] = []

    def turn(self) -> bool:
        """The next few texts."""
        part = self._texts[len(self._done) : len(self._done) + TEXTS_PER_TURN]
        self._done += self._classifier.classify(part)
        if len(self._done) < len(self._texts):
            return False
        self._give(Labelled(self._done))
        return True

    def fail(self, error: Exception) -> None:
        """Give the error."""
        self._give(_as_seen(error))


def _as_seen(error: Exception) -> RequestError:
    """An error as the client sees it: what is wrong with its request in our words, a defect without its details."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, MegadecError) and error.exit_status == REQUEST_WRONG:
        return RequestError(str(error), code="invalid_value")
    return RequestError("the server failed while it computed this request", status=500, code="internal_error")
