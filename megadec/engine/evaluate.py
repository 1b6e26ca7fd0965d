"""Measuring held-out sets: batches walked over all ranks, and of language models loss and bits per character by set.

Bits per character compare models with different tokenizers: nats over characters, not over tokens. Only whole windows
are measured, the same ones each time, so curves are smooth and short; the first tokens of a window have little context,
which makes every figure a little worse than that of a sliding window.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from megadec.common.tokenizer import Tokenizer
from megadec.data.batch import Batch, TokenBatch, assemble
from megadec.data.dataset import DataSet
from megadec.data.pair_stream import PairBatch
from megadec.data.resumable import RankPosition
from megadec.data.windows import plan_windows
from megadec.engine.evaluate_options import EvaluateOptions
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.task import Scorer

HeldOut = Mapping[str, Iterable[TokenBatch | PairBatch]]


def measure_rounds(
    scorer: Scorer, batches: Iterable[Batch], measure: Callable[[Any], Sequence[float]], interrupt: Interrupt
) -> list[list[float]] | None:
    """What `measure` says of each batch, added up over the ranks, round by round; None as soon as any rank wants to
    stop. Collective: every rank brings as many batches, the last of them padding if need be.
    """
    ranks, rounds = scorer.ranks, []
    with scorer.evaluating():
        for batch in batches:
            own = measure(batch.to(ranks.device))
            *sums, stops = ranks.sum_over_ranks([*own, float(interrupt.requested)])
            if stops:
                return None
            rounds.append(sums)
    return rounds


def evaluate_loss(
    scorer: Scorer, sets: HeldOut, tokenizer: Tokenizer, step: int, interrupt: Interrupt
) -> list[Evaluation] | None:
    """Loss and bits per character of every set; None as soon as any rank wants to stop. Collective.

    sets: name -> this rank's batches, as many on every rank.
    """
    characters_V = torch.from_numpy(tokenizer.characters_per_id).to(scorer.ranks.device)

    def measure(batch: TokenBatch | PairBatch) -> tuple[float, int, int]:
        nats = float(scorer.loss_sum(batch))
        return nats, batch.valid_tokens, int(characters_V[batch.targets_BS[batch.weights_BS > 0]].sum())

    found = []
    for name, batches in sets.items():
        began = time.perf_counter()
        rounds = measure_rounds(scorer, batches, measure, interrupt)
        if rounds is None:
            return None
        nats = tokens = characters = 0.0
        for sums in rounds:
            nats, tokens, characters = nats + sums[0], tokens + sums[1], characters + sums[2]
        values = figures(nats, int(tokens), int(characters))
        found.append(Evaluation(step, name, values, time.perf_counter() - began))
    return found


def window_batches(
    data: DataSet, options: EvaluateOptions, sequence_length: int, bos_id: int, position: RankPosition
) -> Iterator[TokenBatch]:
    """This rank's micro-batches of the windows to measure, shared among the ranks as in training."""
    plan, micro = plan_windows(data, sequence_length, "cut"), options.micro_batch_size
    windows = evenly_spaced(plan.windows, options.windows)
    for first in range(0, len(windows), micro * position.groups):
        mine = windows[first + position.group * micro :][:micro]
        padding = [None] * (micro - len(mine))
        batch = assemble([*((plan, window) for window in mine), *padding], sequence_length, bos_id)
        yield batch if position.parts == 1 else batch.part_of_sequences(position.part, position.parts)


def figures(nats: float, tokens: int, characters: int) -> dict[str, float]:
    """What is told of a set: loss in nats a token, perplexity, bits per character, and what they were taken over."""
    loss = nats / max(tokens, 1)
    bits = nats / math.log(2) / max(characters, 1)
    over = {"evaluated_tokens": tokens, "evaluated_characters": characters}
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "bits_per_character": bits, **over}


def evenly_spaced(windows: int, wanted: int) -> list[int]:
    """At most `wanted` window numbers, evenly spaced over all; the same for any number of ranks."""
    taken = min(windows, wanted)
    return [number * windows // taken for number in range(taken)]
