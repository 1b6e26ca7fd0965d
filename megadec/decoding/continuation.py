"""A sequence that is being continued: what was asked for, and what came of it so far. batch.py makes it grow."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from megadec.common.errors import InputError
from megadec.decoding.sampling import Sampling, Score
from megadec.decoding.session import check_ids

Finish = Literal["stop", "length"]


class TokenMask(Protocol):
    """What a text has to look like, as the ids that may come next (a grammar)."""

    def allowed(self) -> Tensor:
        """True for each id that may come next, bool [V] on the CPU; an end id where the text may end.

        The same until an id is accepted. Raises InputError, which ends this sequence alone, for a text that it cannot
        follow.
        """

    def accept(self, token_id: int) -> None:
        """This id has been drawn."""


@dataclasses.dataclass(eq=False)
class Continuation:
    """What is generated behind a prompt.

    end_ids: the sequence ends before one of them ("stop"), unless sampling.ignore_end; otherwise after max_new_tokens
    ("length").
    drawn_ids: only ids below it are drawn, for a model with more rows than its tokenizer has pieces.
    logprobs: give `scores` with so many of the likeliest ids; None gives none. prompt_logprobs: also `prompt_scores`.
    grammar: what may be drawn.
    ids, scores: what was generated. end: the end token that was drawn, with its score. prompt_scores: of each id of
    the prompt but the first, in order.
    finished: why it ended. error: what went wrong with it; nothing more comes then.
    """

    prompt_ids: Sequence[int]
    sampling: Sampling
    end_ids: Collection[int] = ()
    drawn_ids: int | None = None
    logprobs: int | None = None
    prompt_logprobs: bool = False
    grammar: TokenMask | None = None
    ids: list[int] = dataclasses.field(default_factory=list, init=False)
    scores: list[Score] = dataclasses.field(default_factory=list, init=False)
    prompt_scores: list[Score] = dataclasses.field(default_factory=list, init=False)
    end: tuple[int, Score | None] | None = dataclasses.field(default=None, init=False)
    finished: Finish | None = dataclasses.field(default=None, init=False)
    error: Exception | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator("cpu").manual_seed(self.sampling.seed)
        # For the batch that computes it: its place in the cache, and how many of its ids have been fed.
        self.sequence: Any = None
        self.fed_tokens = 0

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return self.finished is not None or self.error is not None

    def check(self, vocabulary_size: int, context: int) -> None:
        """Raise InputError for an empty prompt, an id outside the vocabulary, or what does not fit the context."""
        check_ids(self.prompt_ids, vocabulary_size, context)
        new_tokens = self.sampling.max_new_tokens
        if len(self.prompt_ids) + new_tokens > context:
            raise InputError(
                f"a prompt of {len(self.prompt_ids)} tokens and sampling.max_new_tokens={new_tokens} "
                f"do not fit the model's context of {context} tokens"
            )
        wrong = [one for one in self.sampling.logit_bias if not 0 <= one < vocabulary_size]
        if wrong:
            raise InputError(f"sampling.logit_bias: id {wrong[0]} is not one of the model's {vocabulary_size} ids")

    def take(self, token_id: int, score: Score | None) -> None:
        """An id was drawn. Other threads read in between: a score is there before its id, and `finished` comes last."""
        if token_id in self.end_ids and not self.sampling.ignore_end:
            self.end = (token_id, score)
            self.finished = "stop"
            return
        if score is not None:
            self.scores.append(score)
        if self.grammar is not None:
            self.grammar.accept(token_id)
        self.ids.append(token_id)
        if len(self.ids) == self.sampling.max_new_tokens:
            self.finished = "length"
