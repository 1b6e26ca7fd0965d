"""A run that trains an encoder-decoder on pairs: what a YAML file and a command line say, checked and opened.

In come options, out comes a `Job` whose task is "seq2seq": one of the registry's architectures that read pairs, the
training part of a file of pairs, and the loss on its held-out part. The model's options are the fields of all such
architectures together, and one that does not belong to the chosen one is an error: a run file stays flat.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError
from megadec.common.log import logger
from megadec.common.ranks import world_size
from megadec.common.tokenizer import Tokenizer
from megadec.data.pair_stream import PairBatch, PairStream, assemble_pairs
from megadec.data.pairs import PairOptions, PairSet, open_pairs
from megadec.decoder.textbook.registry import Architecture, architecture
from megadec.decoder.textbook.rnn import Attention, Cell
from megadec.engine.evaluate import figures, spread
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.runs.common import CommonRun, Job, check_folder, open_settings
from megadec.engine.runs.pretrain import TIED_NAMES
from megadec.engine.task import Scorer, Task

HELD_OUT = "held_out"

log = logger(__name__)


@dataclass(frozen=True)
class PairModelOptions:
    """architecture: of decoder/textbook/registry.py. The other fields are those of its shape; None is their default."""

    architecture: Literal["transformer_seq2seq", "rnn_seq2seq"] = "transformer_seq2seq"
    vocabulary_size: int | None = None
    """The tokenizer's when left out; a larger one leaves unused rows."""
    hidden_size: int | None = None
    encoder_layers: int | None = None
    decoder_layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int | None = None
    rope_theta: float | None = None
    norm_eps: float | None = None
    qk_norm: bool | None = None
    cell: Cell | None = None
    attention: Attention | None = None
    tied_embeddings: bool | None = None
    initializer_std: float | None = None

    def shape(self, tokenizer: Tokenizer) -> Any:
        """The shape. Raises ConfigError for a field that is missing or of another architecture."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "architecture"}
        values = {name: value for name, value in values.items() if value is not None}
        size = values.setdefault("vocabulary_size", tokenizer.vocabulary_size)
        if size < tokenizer.vocabulary_size:
            raise ConfigError(
                f"model.vocabulary_size={size} is less than the {tokenizer.vocabulary_size} of {tokenizer.path}"
            )
        return architecture(self.architecture).shape_from(values)


@dataclass(frozen=True)
class PairEvaluateOptions:
    """The loss on the held-out part: `pairs` of it at most, spread over it, every so many steps."""

    interval_steps: int = 500
    pairs: int = 1024
    micro_batch_size: int = 32

    def __post_init__(self) -> None:
        for name in ("interval_steps", "pairs", "micro_batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluate.{name}={getattr(self, name)} is not at least 1")


@dataclass(frozen=True)
class PairsRun(CommonRun):
    """Everything that `launch/seq2seq.py` needs to know beside DeepSpeed's own file."""

    model: PairModelOptions = field(default_factory=PairModelOptions)
    data: PairOptions = field(default_factory=PairOptions)
    evaluate: PairEvaluateOptions = field(default_factory=PairEvaluateOptions)


def open_pairs_run(run: PairsRun, deepspeed_file: Path) -> Job:
    """Check everything that can be wrong with the request before anything costs.

    Raises ConfigError (batch, settings, shape, lengths over the context, no pairs left), InputError (files and lines),
    TokenizerError.
    """
    settings = open_settings(run, deepspeed_file)
    tokenizer = Tokenizer.load(run.tokenizer)
    shape = run.model.shape(tokenizer)
    for name in ("max_source_tokens", "max_target_tokens"):
        if getattr(run.data, name) > shape.max_position_embeddings:
            raise ConfigError(
                f"data.{name}={getattr(run.data, name)} is more than the model's"
                f" max_position_embeddings={shape.max_position_embeddings}"
            )
    check_folder(run)
    train = open_pairs(run.data, tokenizer, "train")
    held_out = open_pairs(run.data, tokenizer, "held_out") if run.data.held_out_fraction else None
    log.info("training: %s", train.counts)
    if held_out is not None:
        log.info("held out: %s", held_out.counts)
    return Job(run, settings, tokenizer, world_size(), seq2seq_task(run, tokenizer, shape, train, held_out))


def seq2seq_task(run: PairsRun, tokenizer: Tokenizer, shape: Any, train: PairSet, held_out: PairSet | None) -> Task:
    """The task of training on `train` and measuring on `held_out`."""
    found: Architecture = architecture(run.model.architecture)
    sizes = found.sizes(shape)

    def evaluator(engine: Scorer) -> PairEvaluator:
        assert held_out is not None, "evaluate_interval_steps is 0 without"
        return PairEvaluator(held_out, run.evaluate, tokenizer, engine)

    return Task(
        kind="seq2seq",
        shape=shape,
        build=lambda: found.module(shape),
        sizes=sizes,
        first_value=lambda name: found.first_value(shape, name, sizes[name], run.seed),
        flops=lambda tokens, squared_tokens: found.flops(shape, tokens, squared_tokens),
        stream=PairStream(train, run.seed, run.train.global_batch_size),
        evaluator=evaluator,
        evaluate_interval_steps=0 if held_out is None else run.evaluate.interval_steps,
        details={"architecture": found.name, "data": to_dict(run.data)},
        tied=(TIED_NAMES,) if shape.tied_embeddings else (),
    )


class PairEvaluator:
    """The loss of the same held-out pairs, every time, shared among the ranks."""

    def __init__(self, pairs: PairSet, options: PairEvaluateOptions, tokenizer: Tokenizer, engine: Scorer) -> None:
        self._pairs, self._options, self._engine = pairs, options, engine
        self._characters_V = tokenizer.characters_per_id
        chosen = spread(len(pairs), options.pairs)
        # By length, so that the rows of a batch need little padding.
        self._numbers = sorted(chosen, key=lambda number: (len(pairs.targets[number]), number))

    def evaluate(self, step: int, interrupt: Interrupt) -> list[Evaluation] | None:
        """One Evaluation of the held-out part; None as soon as any rank wants to stop. Collective."""
        began = time.perf_counter()
        ranks, micro = self._engine.ranks, self._options.micro_batch_size
        totals = [0.0, 0.0, 0.0]
        with self._engine.evaluating():
            for first in range(0, len(self._numbers), micro * ranks.world_size):
                batch = self._batch(self._numbers[first + ranks.rank * micro :][:micro])
                nats = float(self._engine.loss_sum(batch.to(ranks.device)))
                characters = int(self._characters_V[batch.targets_BS[batch.weights_BS > 0].numpy()].sum())
                *sums, stops = ranks.sum_over_ranks([nats, batch.valid_tokens, characters, float(interrupt.requested)])
                if stops:
                    return None
                totals = [total + value for total, value in zip(totals, sums, strict=True)]
        values = figures(totals[0], int(totals[1]), int(totals[2]))
        return [Evaluation(step=step, name=HELD_OUT, values=values, seconds=time.perf_counter() - began)]

    def _batch(self, numbers: list[int]) -> PairBatch:
        # Every rank does as many batches as the first; what is missing is padding.
        return assemble_pairs(self._pairs, [*numbers, *[None] * (self._options.micro_batch_size - len(numbers))])
