"""How the next token is drawn, for a batch of sequences at once, each with its own options and its own generator.

Nothing is sorted. An id is drawn from all probabilities and taken when it belongs to what top_k and top_p keep;
otherwise every id that is not likelier goes, and the next is drawn from the rest. That gives the kept ids in their
proportion, as cutting first would. What a row draws depends on its own logits and generator alone.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megadec.common.errors import ConfigError, check_range

# Beyond them a logit can overflow.
LEAST_PENALTY, MOST_PENALTY = 1e-9, 1e9
MOST_BIAS = 100.0

# Shapes: R sequences of the batch, V vocabulary.


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How the next token is drawn. In this order: penalties and logit_bias, temperature, top_k, min_p, top_p.

    max_new_tokens: the most tokens generated for a prompt.
    temperature: logits are divided by it; 0 takes the likeliest token always (greedy).
    top_k: only the k likeliest tokens stay; 0 keeps all.
    top_p: only the likeliest tokens that together reach this probability stay (arXiv 1904.09751); 1 keeps all.
    repetition_penalty: logits of tokens already seen are divided by it when positive, multiplied when negative (arXiv
    1909.05858); 1 changes nothing.
    seed: of the generator that draws.
    min_p: only tokens of at least this share of the likeliest one's probability stay (arXiv 2407.01082); 0 keeps all.
    presence_penalty: taken from the logits of tokens that were generated (as in OpenAI's API).
    frequency_penalty: the same, for each time that a token was generated.
    logit_bias: added to the logit of an id, -100 to 100.
    ignore_end: an end token is a token like another, and max_new_tokens alone ends the text.
    """

    max_new_tokens: int = 128
    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    seed: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    ignore_end: bool = False

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k", "seed"):
            if type(getattr(self, name)) is not int:
                raise ConfigError(f"sampling.{name}={getattr(self, name)!r} is not a whole number")
        check_range(self, "sampling.", "max_new_tokens", "top_k", least=0)
        check_range(self, "sampling.", "temperature", least=0, below=math.inf)
        check_range(self, "sampling.", "top_p", above=0, most=1)
        check_range(self, "sampling.", "repetition_penalty", least=LEAST_PENALTY, most=MOST_PENALTY)
        check_range(self, "sampling.", "min_p", least=0, most=1)
        check_range(self, "sampling.", "presence_penalty", "frequency_penalty", least=-2, most=2)
        for token_id, bias in self.logit_bias.items():
            if not -MOST_BIAS <= bias <= MOST_BIAS:
                raise ConfigError(
                    f"sampling.logit_bias: {token_id}: {bias} is not between {-MOST_BIAS:g} and {MOST_BIAS:g}"
                )


class Score(NamedTuple):
    """How likely a token was: its log-probability in nats, and those of the likeliest ids, the likeliest first.

    Of the model's own distribution: before penalties, temperature and what is cut.
    """

    log_probability: float
    top: tuple[tuple[int, float], ...]


def scores(logits_RV: Tensor, ids: Sequence[int], tops: Sequence[int]) -> list[Score]:
    """The score of one id a row, with the `tops` likeliest of each."""
    if not ids:
        return []
    found_RV = logits_RV.float().log_softmax(-1)
    own = found_RV.gather(1, torch.tensor(ids, device=logits_RV.device)[:, None])[:, 0].tolist()
    best = found_RV.topk(max(tops)) if max(tops) else None
    values = best.values.tolist() if best else [[]] * len(ids)
    places = best.indices.tolist() if best else [[]] * len(ids)
    return [
        Score(one, tuple(zip(place[:top], value[:top], strict=True)))
        for one, place, value, top in zip(own, places, values, tops, strict=True)
    ]


def penalize(logits_V: Tensor, sampling: Sampling, seen_ids: Sequence[int], generated_ids: Sequence[int]) -> Tensor:
    """Logits after penalties and logit_bias; the input is not changed. seen_ids: prompt and generated ones."""
    out_V = logits_V.clone()
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(sorted(set(seen_ids)), device=out_V.device)
        values = out_V[seen]
        penalty = sampling.repetition_penalty
        out_V[seen] = torch.where(values > 0, values / penalty, values * penalty)
    if generated_ids and (sampling.presence_penalty or sampling.frequency_penalty):
        ids, counts = torch.tensor(list(generated_ids), device=out_V.device).unique(return_counts=True)
        out_V[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
    if sampling.logit_bias:
        ids = torch.tensor(list(sampling.logit_bias), device=out_V.device)
        out_V[ids] += torch.tensor(list(sampling.logit_bias.values()), device=out_V.device, dtype=out_V.dtype)
    return out_V


def draw(logits_RV: Tensor, options: Sequence[Sampling], generators: Sequence[torch.Generator]) -> list[int]:
    """One id for each row. Generators are the CPU's, so that a seed gives the same numbers on every device."""
    greedy_R = logits_RV.argmax(-1).tolist()
    temperatures = torch.tensor([one.temperature or 1.0 for one in options], device=logits_RV.device)
    scaled_RV = logits_RV.float() / temperatures[:, None]
    # A temperature so near to 0 that a logit overflows is greedy.
    finite = scaled_RV.amax(-1).isfinite().tolist()
    rows = [row for row, one in enumerate(options) if one.temperature and finite[row]]
    found = list(map(int, greedy_R))
    if rows:
        probabilities_RV = scaled_RV[rows].softmax(-1)
        drawn = _draw_kept(probabilities_RV, [options[row] for row in rows], [generators[row] for row in rows])
        for row, one in zip(rows, drawn, strict=True):
            found[row] = one
    return found


def _draw_kept(
    probabilities_RV: Tensor, options: Sequence[Sampling], generators: Sequence[torch.Generator]
) -> list[int]:
    left_RV = _likeliest(probabilities_RV, options)
    device = left_RV.device
    # What top_p is a share of: that which top_k and min_p leave.
    shares_R = torch.tensor([one.top_p for one in options], device=device, dtype=torch.float64)
    bounds_R = left_RV.sum(-1, dtype=torch.float64) * shares_R
    everything_R = torch.tensor([one.top_p == 1 for one in options], device=device)
    kept_RV, rows, found = left_RV, list(range(len(options))), [0] * len(options)
    while rows:
        sums_RV = left_RV.cumsum(-1, dtype=torch.float64)
        parts = torch.tensor([torch.rand((), generator=generators[row], dtype=torch.float64) for row in rows])
        # Not more than the last sum below which there still is something to draw.
        aims_R1 = torch.minimum(
            parts.to(device)[:, None] * sums_RV[:, -1:], sums_RV[:, -1:].nextafter(sums_RV.new_zeros(()))
        )
        ids_R1 = torch.searchsorted(sums_RV, aims_R1, right=True)
        own_R1 = kept_RV.gather(1, ids_R1)
        # In front of an id: what is likelier, and of what is as likely the lower ids.
        columns = torch.arange(kept_RV.shape[1], device=device)
        before_RV = (kept_RV > own_R1) | ((kept_RV == own_R1) & (columns < ids_R1))
        mass_R = (kept_RV * before_RV).sum(-1, dtype=torch.float64)
        # The likeliest stays also where its share is too small for a number.
        taken = ((mass_R < bounds_R) | (mass_R == 0) | everything_R).tolist()
        for row, one, is_taken in zip(rows, ids_R1[:, 0].tolist(), taken, strict=True):
            if is_taken:
                found[row] = one
        again = [place for place, is_taken in enumerate(taken) if not is_taken]
        rows = [rows[place] for place in again]
        if rows:
            left_RV, kept_RV = (left_RV * before_RV)[again], kept_RV[again]
            bounds_R, everything_R = bounds_R[again], everything_R[again]
    return found


def _likeliest(probabilities_RV: Tensor, options: Sequence[Sampling]) -> Tensor:
    """Probabilities without what top_k and min_p cut; of equal ones at the edge of top_k the lower ids stay."""
    out_RV = probabilities_RV
    for row, one in enumerate(options):
        if 0 < one.top_k < out_RV.shape[1]:
            p_V = probabilities_RV[row]
            edge = p_V.topk(one.top_k).values[-1]
            equal_V = p_V == edge
            room = one.top_k - (p_V > edge).sum()
            out_RV[row] = p_V * ((p_V > edge) | (equal_V & (equal_V.cumsum(0) <= room)))
        if one.min_p:
            out_RV[row] *= out_RV[row] >= one.min_p * out_RV[row].max()
    return out_RV
