"""Held-out loss: a decoder and held-out shards in, loss and bits per character by set out.

Bits per character compare models with different tokenizers: nats over characters, not over tokens. Only whole windows
are measured, the same ones each time, so curves are smooth and short; the first tokens of a window have little context,
which makes every figure a little worse than that of a sliding window.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.batch import TokenBatch, assemble
from megadec.data.index import DataSet
from megadec.data.sharding import rank_position
from megadec.data.windows import WindowPlan, plan_windows
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.task import Scorer


@dataclass(frozen=True)
class EvaluateOptions:
    """`sets`: name to folder of held-out shards. `windows`: at most this many of each set, spread over it."""

    sets: dict[str, str] = field(default_factory=dict)
    interval_steps: int = 500
    windows: int = 128
    micro_batch_size: int = 8

    def __post_init__(self) -> None:
        for name in ("interval_steps", "windows", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)} is not at least 1")


class WindowEvaluator:
    """The same windows of each held-out set, every time, shared among the ranks as in training."""

    def __init__(
        self,
        sets: Mapping[str, DataSet],
        options: EvaluateOptions,
        sequence_length: int,
        tokenizer: Tokenizer,
        engine: Scorer,
        sequence_parallel_size: int = 1,
    ) -> None:
        self._place = rank_position(engine.ranks.rank, engine.ranks.world_size, sequence_parallel_size)
        self._plans = {name: plan_windows(data, sequence_length, "cut") for name, data in sets.items()}
        self._options = options
        self._bos_id = tokenizer.bos_id
        self._engine = engine
        self._characters_V = torch.from_numpy(tokenizer.characters_per_id).to(engine.ranks.device)

    def evaluate(self, step: int, interrupt: Interrupt) -> list[Evaluation] | None:
        """Loss and bits per character of every set; None as soon as any rank wants to stop. Collective."""
        found = []
        with self._engine.evaluating():
            for name, plan in self._plans.items():
                evaluation = self._evaluate_set(step, name, plan, interrupt)
                if evaluation is None:
                    return None
                found.append(evaluation)
        return found

    def _evaluate_set(self, step: int, name: str, plan: WindowPlan, interrupt: Interrupt) -> Evaluation | None:
        began = time.perf_counter()
        windows = spread(plan.windows, self._options.windows)
        ranks, micro = self._engine.ranks, self._options.micro_batch_size
        totals = [0.0, 0.0, 0.0]
        # Every rank does as many steps as the first, which has the most windows; what is missing is padding.
        for first in range(0, len(windows), micro * self._place.groups):
            mine = windows[first + self._place.group * micro :][:micro]
            batch = self._batch(plan, mine).to(ranks.device)
            nats = float(self._engine.loss_sum(batch))
            counted = batch.weights_BS > 0
            characters = int(self._characters_V[batch.targets_BS[counted]].sum())
            *sums, stops = ranks.sum_over_ranks([nats, batch.valid_tokens, characters, float(interrupt.requested)])
            if stops:
                return None
            totals = [total + value for total, value in zip(totals, sums, strict=True)]
        all_nats, all_tokens, all_characters = totals
        return Evaluation(
            step=step,
            name=name,
            values=figures(all_nats, int(all_tokens), int(all_characters)),
            seconds=time.perf_counter() - began,
        )

    def _batch(self, plan: WindowPlan, windows: list[int]) -> TokenBatch:
        missing = self._options.micro_batch_size - len(windows)
        rows = [*((plan, window) for window in windows), *[None] * missing]
        batch = assemble(rows, plan.sequence_length, self._bos_id)
        return batch if self._place.parts == 1 else batch.part_of_sequences(self._place.part, self._place.parts)


def figures(nats: float, tokens: int, characters: int) -> dict[str, float]:
    """What is told of a set: loss in nats a token, perplexity, bits per character, and what they were taken over."""
    loss = nats / max(tokens, 1)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "bits_per_character": nats / math.log(2) / max(characters, 1),
        "evaluated_tokens": tokens,
        "evaluated_characters": characters,
    }


def spread(windows: int, wanted: int) -> list[int]:
    """At most `wanted` window numbers, evenly spaced over all; the same for any number of ranks."""
    taken = min(windows, wanted)
    return [number * windows // taken for number in range(taken)]
