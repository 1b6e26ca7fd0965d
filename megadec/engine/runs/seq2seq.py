"""A run that trains an encoder-decoder on pairs: what a YAML file and a command line say, checked and opened.

In come options, out comes a `Job` whose task is "seq2seq": one of the registry's architectures that read pairs, the
training part of a file of pairs, and the loss on its held-out part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from megadec.common.config import to_dict
from megadec.common.errors import check_range
from megadec.common.log import logger
from megadec.common.tokenizer import Tokenizer
from megadec.data.pair_stream import PairBatch, PairStream, assemble_pairs
from megadec.data.pairs import PairOptions, PairSet, open_pairs
from megadec.decoder.textbook.registry import Architecture, architecture
from megadec.engine.evaluate import evaluate_loss, evenly_spaced
from megadec.engine.health.preemption import Interrupt
from megadec.engine.metrics.reports import Evaluation
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import CommonRun, Job, ShapeFields, check_length, open_settings, with_vocabulary
from megadec.engine.runs.open_pretrain import TIED_NAMES
from megadec.engine.task import Scorer, Task

log = logger(__name__)


@dataclass(frozen=True)
class PairModelOptions:
    """architecture: one of decoder/textbook/registry.py. shape: fields of its shape."""

    architecture: Literal["transformer_seq2seq", "rnn_seq2seq"] = "transformer_seq2seq"
    shape: ShapeFields = field(default_factory=dict)

    def pair_shape(self, tokenizer: Tokenizer) -> Any:
        """The architecture's shape. Raises ConfigError for a field that is missing or of another architecture."""
        return architecture(self.architecture).shape_from(with_vocabulary(self.shape, tokenizer))


@dataclass(frozen=True)
class PairEvaluateOptions:
    """The loss on the held-out pairs, during training.

    interval_steps: evaluate every this many steps, and at the start and the end.
    pairs: at most this many, evenly spaced over the held-out part.
    micro_batch_size: pairs of one rank at a time.
    """

    interval_steps: int = 500
    pairs: int = 1024
    micro_batch_size: int = 32

    def __post_init__(self) -> None:
        check_range(self, "evaluate.", "interval_steps", "pairs", "micro_batch_size", least=1)


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
    shape = run.model.pair_shape(tokenizer)
    for name in ("max_source_tokens", "max_target_tokens"):
        check_length(f"data.{name}", getattr(run.data, name), shape.max_position_embeddings)
    train = open_pairs(run.data, tokenizer, "train")
    held_out = open_pairs(run.data, tokenizer, "held_out") if run.data.held_out_fraction else None
    log.info("training: %s", train.counts)
    if held_out is not None:
        log.info("held out: %s", held_out.counts)
    return Job(run, settings, tokenizer, seq2seq_task(run, tokenizer, shape, train, held_out))


def seq2seq_task(run: PairsRun, tokenizer: Tokenizer, shape: Any, train: PairSet, held_out: PairSet | None) -> Task:
    """The task of training on `train` and measuring on `held_out`."""
    found: Architecture = architecture(run.model.architecture)
    sizes = found.sizes(shape)

    def evaluate(scorer: Scorer, step: int, interrupt: Interrupt) -> list[Evaluation] | None:
        assert held_out is not None, "evaluate_interval_steps is 0 without"
        sets = {"held_out": pair_batches(held_out, run.evaluate, scorer.ranks)}
        return evaluate_loss(scorer, sets, tokenizer, step, interrupt)

    return Task(
        kind="seq2seq",
        shape=shape,
        build=lambda: found.module(shape),
        sizes=sizes,
        first_value=lambda name: found.first_value(shape, name, sizes[name], run.seed),
        flops=lambda tokens, squared_tokens: found.flops(shape, tokens, squared_tokens),
        stream=PairStream(train, run.seed, run.train.global_batch_size),
        evaluate=evaluate,
        evaluate_interval_steps=0 if held_out is None else run.evaluate.interval_steps,
        details={"architecture": found.name, "data": to_dict(run.data)},
        tied=(TIED_NAMES,) if shape.tied_embeddings else (),
        largest_batch=lambda micro: longest_pairs(train, micro),
    )


def pair_batches(pairs: PairSet, options: PairEvaluateOptions, ranks: Ranks) -> Iterator[PairBatch]:
    """This rank's micro-batches of the same held-out pairs, every time."""
    lengths, micro = np.diff(pairs.targets.starts), options.micro_batch_size
    # By length, so that the sequences of a batch need little padding.
    numbers = sorted(evenly_spaced(len(pairs), options.pairs), key=lambda number: (lengths[number], number))
    for first in range(0, len(numbers), micro * ranks.world_size):
        mine = numbers[first + ranks.rank * micro :][:micro]
        yield assemble_pairs(pairs, [*mine, *[None] * (micro - len(mine))])


def longest_pairs(pairs: PairSet, micro_batch_size: int) -> PairBatch:
    """As many pairs as a micro-batch has, as long as they can be: padded to the longest source and the longest target.

    A micro-batch of one pair has the one that is longest in all.
    """
    sources, targets = np.diff(pairs.sources.starts), np.diff(pairs.targets.starts)
    longest = [sources.argmax(), targets.argmax()] if micro_batch_size > 1 else [(sources + targets).argmax()]
    return assemble_pairs(pairs, [*map(int, longest), *[None] * (micro_batch_size - len(longest))])
