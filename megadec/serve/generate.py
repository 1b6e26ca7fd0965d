"""Text from a decoder, one token at a time.

In: a decoder, a prompt, how to draw. Out: ids or text as they come, each new token computed against the cache of those
before it. Trade-off: a token is drawn on the CPU in float64, which moves one row of logits off the accelerator for each
token, and gives the same text for the same seed and logits on every device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from megadec.common.errors import ConfigError, InputError
from megadec.common.tokenizer import Tokenizer
from megadec.decoder.cache import KeyValueCache
from megadec.decoder.model import Decoder


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
        rules = (
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (all) or more"),
            ("top_p", 0 < self.top_p <= 1, "over 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "over 0"),
        )
        for name, holds, rule in rules:
            if not holds:
                raise ConfigError(f"sampling.{name}={getattr(self, name)!r} is out of range: {rule}")


GREEDY = Sampling(temperature=0.0, top_p=1.0)


def generate_text(decoder: Decoder, tokenizer: Tokenizer, prompt: str, sampling: Sampling) -> Iterator[str]:
    """The continuation of `prompt` as pieces of whole characters, without the prompt; ends before `</s>`.

    A last character that the token limit cut in the middle is left out. Raises InputError as `generate_ids` does.
    """
    ids = generate_ids(decoder, [tokenizer.bos_id, *tokenizer.encode(prompt)], sampling, tokenizer.eos_id)
    return _whole_characters(ids, tokenizer)


def _whole_characters(ids: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    stream = tokenizer.stream()
    for piece_id in ids:
        text = stream.push(piece_id)
        if text:
            yield text


def generate_ids(
    decoder: Decoder, prompt_ids: Sequence[int], sampling: Sampling, eos_id: int | None = None
) -> Iterator[int]:
    """The ids that follow the prompt, as they are drawn; ends before eos_id or after max_new_tokens.

    Raises InputError at once, before anything is computed, for an empty prompt, an id outside the vocabulary, or a
    prompt and max_new_tokens that do not fit the decoder's context together.
    """
    shape = decoder.shape
    if not prompt_ids:
        raise InputError("the prompt has no tokens; at least one is needed, such as <s>")
    wrong = [i for i in prompt_ids if not 0 <= i < shape.vocabulary_size]
    if wrong:
        raise InputError(f"the prompt holds id {wrong[0]}; the model's vocabulary has {shape.vocabulary_size} ids")
    if len(prompt_ids) + sampling.max_new_tokens > shape.context_tokens:
        raise InputError(
            f"a prompt of {len(prompt_ids)} tokens and sampling.max_new_tokens={sampling.max_new_tokens} do not fit "
            f"the model's context of {shape.context_tokens} tokens"
        )
    return _draw_ids(decoder, list(prompt_ids), sampling, eos_id)


def _draw_ids(decoder: Decoder, ids: list[int], sampling: Sampling, eos_id: int | None) -> Iterator[int]:
    weight = decoder.embed_tokens.weight
    cache = KeyValueCache(decoder.shape, 1, device=weight.device, dtype=weight.dtype)
    generator = torch.Generator("cpu").manual_seed(sampling.seed)
    seen_ids, new_ids = ids, ids
    for _ in range(sampling.max_new_tokens):
        next_id = draw(_last_logits(decoder, new_ids, cache), seen_ids, sampling, generator)
        if next_id == eos_id:
            return
        yield next_id
        seen_ids, new_ids = [*seen_ids, next_id], [next_id]


@torch.inference_mode()
def _last_logits(decoder: Decoder, new_ids: Sequence[int], cache: KeyValueCache) -> Tensor:
    """Logits [V] behind the last of new_ids, float64 on the CPU."""
    ids_BS = torch.tensor([new_ids], device=decoder.embed_tokens.weight.device)
    logits_B1V: Tensor = decoder(ids_BS, cache=cache, last_only=True)
    return logits_B1V[0, -1].to("cpu", torch.float64)


def draw(logits_V: Tensor, seen_ids: Sequence[int], sampling: Sampling, generator: torch.Generator) -> int:
    """One id drawn from the logits."""
    logits_V = penalise(logits_V, seen_ids, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = kept_probabilities(logits_V / sampling.temperature, sampling.top_k, sampling.top_p)
    return int(torch.multinomial(probabilities_V, 1, generator=generator))


def penalise(logits_V: Tensor, seen_ids: Sequence[int], penalty: float) -> Tensor:
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
