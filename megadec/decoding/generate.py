"""Text from a language model, one token at a time.

A token is drawn on the CPU in float64, which moves the logits off the accelerator for each token, and gives the same
text for the same seed and logits on every device.
"""

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from megadec.common.errors import ConfigError, ExportError, InputError, check_range
from megadec.common.tokenizer import Tokenizer
from megadec.decoding.session import LanguageModel, Session, check_ids

# Beyond them a logit can overflow.
LEAST_PENALTY, MOST_PENALTY = 1e-9, 1e9


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. Applied in this order: repetition penalty, temperature, top_k, top_p.

    max_new_tokens: the most tokens generated for a prompt.
    temperature: logits are divided by it; 0 takes the likeliest token always (greedy).
    top_k: only the k likeliest tokens stay; 0 keeps all.
    top_p: only the likeliest tokens that together reach this probability stay (arXiv 1904.09751); 1 keeps all.
    repetition_penalty: logits of tokens already seen are divided by it when positive, multiplied when negative (arXiv
    1909.05858); 1 changes nothing.
    seed: of the generator that draws.
    """

    max_new_tokens: int = 128
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k", "seed"):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"sampling.{name}={getattr(self, name)!r} is not a whole number")
        check_range(self, "sampling.", "max_new_tokens", least=1)
        check_range(self, "sampling.", "temperature", least=0, below=math.inf)
        check_range(self, "sampling.", "top_k", least=0)
        check_range(self, "sampling.", "top_p", above=0, most=1)
        check_range(self, "sampling.", "repetition_penalty", least=LEAST_PENALTY, most=MOST_PENALTY)


Finish = Literal["stop", "length"]
# A long prompt is read in parts of this many tokens, so that other sequences advance between them.
PROMPT_PART_TOKENS = 512


@dataclasses.dataclass(eq=False)
class Continuation:
    """A sequence being continued: `advance` until `finished` says why it ended, or iterate over the ids.

    Raises InputError at once, before anything is computed, for an empty prompt, an id outside the vocabulary, or a
    prompt and max_new_tokens that do not fit the model's context together.

    end_ids: the sequence ends before one of them ("stop"); otherwise after max_new_tokens ("length").
    drawn_ids: only ids below it are drawn, for a model with more rows than its tokenizer has pieces.
    """

    model: LanguageModel
    prompt_ids: Sequence[int]
    sampling: Sampling
    end_ids: Collection[int] = ()
    drawn_ids: int | None = None
    finished: Finish | None = dataclasses.field(default=None, init=False)

    def __post_init__(self) -> None:
        check_ids(self.prompt_ids, self.model.vocabulary_size, self.model.max_position_embeddings)
        if len(self.prompt_ids) + self.sampling.max_new_tokens > self.model.max_position_embeddings:
            raise InputError(
                f"a prompt of {len(self.prompt_ids)} tokens and sampling.max_new_tokens={self.sampling.max_new_tokens} "
                f"do not fit the model's context of {self.model.max_position_embeddings} tokens"
            )
        self._session: Session | None = None
        self._generator = torch.Generator("cpu").manual_seed(self.sampling.seed)
        self._seen_ids = list(self.prompt_ids)
        self._fed_tokens = 0

    def __iter__(self) -> Iterator[int]:
        while self.finished is None:
            next_id = self.advance()
            if next_id is not None:
                yield next_id

    def advance(self) -> int | None:
        """Read a part of the prompt or draw one id; None where no id came out of it."""
        # Made here and not above: a request that waits for its turn holds no cache.
        self._session = self._session or self.model.session()
        part_ids = self._seen_ids[self._fed_tokens : self._fed_tokens + PROMPT_PART_TOKENS]
        logits_V = self._session.feed(part_ids)
        self._fed_tokens += len(part_ids)
        if self._fed_tokens < len(self._seen_ids):
            return None
        next_id = draw(logits_V[: self.drawn_ids], self._seen_ids, self.sampling, self._generator)
        if next_id in self.end_ids:
            self.finished = "stop"
            return None
        self._seen_ids.append(next_id)
        if len(self._seen_ids) == len(self.prompt_ids) + self.sampling.max_new_tokens:
            self.finished = "length"
        return next_id


def generate_text(model: LanguageModel, tokenizer: Tokenizer, prompt: str, sampling: Sampling) -> Iterator[str]:
    """The continuation of `prompt` as pieces of whole characters, without the prompt; ends before an end token.

    A last character that the token limit cut in the middle is left out. Raises InputError as `Continuation` does, at
    once.
    """
    prompt_ids = tokenizer.prompt_ids(prompt)
    continuation = Continuation(model, prompt_ids, sampling, tokenizer.end_ids, tokenizer.vocabulary_size)
    stream = tokenizer.stream()
    return filter(None, map(stream.push, continuation))


def draw(logits_V: Tensor, seen_ids: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """One id drawn from the logits. Raises ExportError for logits that are not finite: no id would mean anything."""
    if not math.isfinite(logits_V.max()):  # NaN is the maximum of what holds it
        raise ExportError(
            "the model's logits are not numbers: its weights, or the dtype that it is computed in, are wrong"
        )
    logits_V = penalize(logits_V, seen_ids, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    scaled_V = logits_V / sampling.temperature
    if not math.isfinite(scaled_V.max()):  # a temperature so near to 0 is greedy
        return int(logits_V.argmax())
    probabilities_V = kept_probabilities(scaled_V, sampling.top_k, sampling.top_p)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def penalize(logits_V: Tensor, seen_ids: Sequence[int], penalty: float) -> Tensor:
    """Logits with those of seen ids lowered, once each however often it was seen; the input is not changed."""
    if penalty == 1:
        return logits_V
    seen = torch.tensor(sorted(set(seen_ids)), dtype=torch.int64)
    values = logits_V[seen]
    return logits_V.index_copy(0, seen, torch.where(values > 0, values / penalty, values * penalty))


def kept_probabilities(logits_V: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities [V] after top_k and top_p, summing to 1; the likeliest id always stays.

    Equal logits are kept in order of id, so exactly k stay.
    """
    if not top_k and top_p == 1:
        return logits_V.softmax(-1)
    ordered_V, order_V = logits_V.sort(descending=True, stable=True)
    probabilities_V = ordered_V.softmax(-1)
    if top_k:
        probabilities_V[top_k:] = 0
        probabilities_V /= probabilities_V.sum()
    if top_p < 1:
        reached_before_V = probabilities_V.cumsum(-1) - probabilities_V
        probabilities_V[reached_before_V >= top_p] = 0
        probabilities_V /= probabilities_V.sum()
    return torch.zeros_like(probabilities_V).scatter_(0, order_V, probabilities_V)
