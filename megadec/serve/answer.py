"""An answer, token by token.

Text is held back while it is part of a character or may be the beginning of a stop text, so a stream is a few
characters late and never takes anything back.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from megadec.common.tokenizer import Tokenizer
from megadec.decoding.continuation import Continuation, Finish


class Piece(NamedTuple):
    """Some more whole characters; with a reason they are the last."""

    text: str
    reason: Finish | None = None


class StopTexts:
    """Cuts a stream of text before the first stop text to be whole.

    held: what is held back, as it may be the beginning of one.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self.held = ""
        self.found = False

    def push(self, text: str) -> str:
        """What can be given away now that `text` has come."""
        self.held += text
        places = [(self.held.find(stop), stop) for stop in self._stops]
        # The one that is whole first, and of those the longest: the same however the text is cut into pieces.
        ends = [(place + len(stop), place) for place, stop in places if place >= 0]
        if ends:
            self.found = True
            given, self.held = self.held[: min(ends)[1]], ""
            return given
        keep = max((_beginning(self.held, stop) for stop in self._stops), default=0)
        given, self.held = self.held[: len(self.held) - keep], self.held[len(self.held) - keep :]
        return given


def _beginning(text: str, stop: str) -> int:
    """The longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class Answer:
    """A continuation as text, while it grows. `count` is called for each token.

    index: among the answers of its request. echo: the prompt's text, whole characters of it, stands in front.
    """

    def __init__(
        self,
        continuation: Continuation,
        tokenizer: Tokenizer,
        stops: Sequence[str],
        count: Callable[[], None],
        index: int = 0,
        echo: bool = False,
    ) -> None:
        self.continuation = continuation
        self.index = index
        self.echo = echo
        self._text = tokenizer.stream()
        self._echoed = "".join(map(self._text.push, continuation.prompt_ids)) if echo else ""
        self._stops = StopTexts(stops)
        self._count = count
        self.tokens = 0
        self.asked = time.monotonic()
        self.first_token = self.last_token = 0.0  # when they came

    def turn(self) -> Piece:
        """The text that became whole by the tokens that came since."""
        text, self._echoed = self._echoed, ""
        # Before the ids: another thread adds them, and says only behind the last that it is the last.
        finished = self.continuation.finished
        for next_id in self.continuation.ids[self.tokens :]:
            self.tokens += 1
            self.last_token = time.monotonic()
            self.first_token = self.first_token or self.last_token
            self._count()
            text += self._stops.push(self._text.push(next_id))
            if self._stops.found:
                break
        reason = "stop" if self._stops.found else finished
        # A character that the limit cut in the middle is left out.
        return Piece(text + self._stops.held if reason else text, reason)

    def mean_log_probability(self) -> float:
        """Of its tokens, the end token among them; what best_of compares."""
        own = self.continuation.scores[: self.tokens]
        if self.continuation.end is not None and self.continuation.end[1] is not None:
            own = [*own, self.continuation.end[1]]
        return math.fsum(one.log_probability for one in own) / max(len(own), 1)
