"""Beam search with an encoder-decoder: sequences of source ids in, for each the best sequence of target ids out.

A hypothesis that ends leaves the beam and takes its place with it, so the beam of a source narrows until it is empty
(Bahdanau et al., arXiv 1409.0473), and a beam of one is greedy search. Among those that ended, and those that the limit
cut, the highest log-probability divided by length ** length_penalty wins. The choice is made for each source by itself,
on the CPU in float64; all hypotheses of all sources are computed as one batch that shrinks as they end.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from megadec.common.errors import InputError, check_range
from megadec.data.batch import PADDING_ID
from megadec.decoder.textbook.seq2seq import EncoderDecoder, SourceCache


@dataclass(frozen=True)
class Beam:
    """beam: hypotheses of a source that are followed at a time; 1 is greedy. max_new_tokens: with `</s>`.

    length_penalty: the power of the length that a hypothesis's log-probability is divided by; 0 compares sums (which
    favours short ones), 1 means.
    """

    beam: int = 4
    max_new_tokens: int = 128
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "", "beam", "max_new_tokens", least=1)
        check_range(self, "", "length_penalty", least=0, below=math.inf)

    def score(self, log_probability: float, tokens: int) -> float:
        """What hypotheses are compared by."""
        return log_probability / math.pow(tokens, self.length_penalty)


GREEDY = Beam(beam=1)


class Found(NamedTuple):
    """A hypothesis: target ids, with `</s>` where it ended by itself; their log-probability and its score."""

    ids: tuple[int, ...]
    log_probability: float
    score: float


class _Live(NamedTuple):
    source: int
    ids: tuple[int, ...]
    log_probability: float


def search(
    model: EncoderDecoder, sources: Sequence[Sequence[int]], how: Beam, *, bos_id: int, eos_id: int
) -> list[Found]:
    """The best target of each source, whose ids end as in training (with `</s>`).

    Raises InputError for an empty source, or one that does not fit the model's context.
    """
    device = model.embed_tokens.weight.device
    limit = min(how.max_new_tokens, model.shape.max_position_embeddings)
    ended: list[list[Found]] = [[] for _ in sources]
    live = [_Live(number, (), 0.0) for number in range(len(sources))]
    with torch.inference_mode():
        cache = _read(model, sources, device)
        ids_R1 = torch.full((len(sources), 1), bos_id, device=device)
        for length in range(1, limit + 1):
            logits_RV = model(ids_R1, cache=cache, last_only=True)[:, -1].to("cpu", torch.float64)
            live, rows = _step(live, logits_RV.log_softmax(dim=-1), ended, how, eos_id)
            if length == limit or not live:
                break
            cache.select(torch.tensor(rows, device=device))
            ids_R1 = torch.tensor([[one.ids[-1]] for one in live], device=device)
    for one in live:
        ended[one.source].append(Found(one.ids, one.log_probability, how.score(one.log_probability, len(one.ids))))
    return [max(found, key=lambda one: one.score) for found in ended]


def _step(
    live: Sequence[_Live], log_probabilities_RV: Tensor, ended: list[list[Found]], how: Beam, eos_id: int
) -> tuple[list[_Live], list[int]]:
    """The hypotheses that go on by one token, and the row that each one continues; what ends goes into `ended`."""
    totals_RV = log_probabilities_RV + torch.tensor([[one.log_probability] for one in live], dtype=torch.float64)
    found: list[_Live] = []
    rows: list[int] = []
    for source, group in itertools.groupby(range(len(live)), lambda row: live[row].source):
        own = list(group)
        totals_N = totals_RV[own].flatten()
        best = totals_N.topk(min(how.beam - len(ended[source]), len(totals_N)))
        for total, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = own[place // totals_RV.shape[1]], place % totals_RV.shape[1]
            ids = (*live[row].ids, token)
            if token == eos_id:
                ended[source].append(Found(ids, total, how.score(total, len(ids))))
            else:
                found.append(_Live(source, ids, total))
                rows.append(row)
    return found, rows


def _read(model: EncoderDecoder, sources: Sequence[Sequence[int]], device: torch.device) -> SourceCache:
    """Encode the sources, padded to the longest."""
    lengths = [len(ids) for ids in sources]
    if not lengths or min(lengths) < 1:
        raise InputError("a source has no tokens; at least one is needed, such as </s>")
    padded = [[*ids, *[PADDING_ID] * (max(lengths) - len(ids))] for ids in sources]
    cache: SourceCache = model.read(torch.tensor(padded, device=device), torch.tensor(lengths, device=device))
    return cache
