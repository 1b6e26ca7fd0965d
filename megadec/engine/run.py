"""A run: what a YAML file and a command line say, checked against what is on the disk.

In come options, out comes a `Job` that is known to be possible: tokenizer, shards, shape, batch and DeepSpeed settings
fit each other. Trade-off: every data set is opened before a process group exists, which takes a moment with very many
shards and turns a mistake into one message instead of a crash on every rank.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from megadec.common.errors import ConfigError
from megadec.common.ranks import world_size
from megadec.common.tokenizer import Tokenizer
from megadec.data.index import DataSet
from megadec.data.stream import TrainStream
from megadec.decoder.recompute import Recompute
from megadec.decoder.shape import DecoderShape
from megadec.engine.checkpoint import FOLDER, CheckpointOptions
from megadec.engine.evaluate import EvaluateOptions
from megadec.engine.metrics import FILE_NAME, MetricsOptions
from megadec.engine.optimizer import OptimizerOptions
from megadec.engine.schedule import ScheduleOptions
from megadec.engine.settings import DeepSpeedSettings, Precision, RunsShare, merge_settings
from megadec.engine.zero import check_zero_section


@dataclass(frozen=True)
class ModelOptions:
    """A preset of megadec/decoder/presets, any of its fields changed, and how activations are recomputed."""

    preset: str | None = None
    vocabulary_size: int | None = None
    """The tokenizer's when left out; a larger one leaves unused rows."""
    hidden_size: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    intermediate_size: int | None = None
    context_tokens: int | None = None
    rope_theta: float | None = None
    norm_eps: float | None = None
    qk_norm: bool | None = None
    tied_embeddings: bool | None = None
    initializer_std: float | None = None
    recompute: Recompute = field(default_factory=Recompute)

    def shape(self, tokenizer: Tokenizer) -> DecoderShape:
        """The decoder's shape.

        Raises ConfigError for an unknown preset, a missing field, a vocabulary that is too small.
        """
        changes = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("preset", "recompute")}
        changes = {name: value for name, value in changes.items() if value is not None}
        changes.setdefault("vocabulary_size", tokenizer.vocabulary_size)
        if changes["vocabulary_size"] < tokenizer.vocabulary_size:
            raise ConfigError(
                f"model.vocabulary_size={changes['vocabulary_size']} is less than the {tokenizer.vocabulary_size} of"
                f" {tokenizer.path}"
            )
        if self.preset is None:
            return DecoderShape.from_mapping(changes)
        return DecoderShape.from_preset(self.preset, **changes)


@dataclass(frozen=True)
class DataOptions:
    """`train`: folder of shards to weight: how often its windows are seen while a set of weight 1 is seen once."""

    train: dict[str, float] = field(default_factory=dict)
    row_tokens: int = 1024
    packing: Literal["cut", "best_fit"] = "cut"


@dataclass(frozen=True)
class TrainOptions:
    """`sequences_per_step`: rows of a step over all ranks; `micro_sequences`: rows of one rank in one micro-step.

    `stop_at_step`: save and end there; schedule and data stay those of `steps`, so a later start goes on as if it had
    not stopped.
    """

    steps: int = 1000
    sequences_per_step: int = 64
    micro_sequences: int = 8
    precision: Precision = "bf16"
    stop_at_step: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "sequences_per_step", "micro_sequences", "stop_at_step"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"train.{name}={value} is not at least 1")

    @property
    def last_step(self) -> int:
        """The step after which this start of the run ends."""
        return min(self.steps, self.stop_at_step or self.steps)


@dataclass(frozen=True)
class Run:
    """Everything that `launch/pretrain.py` needs to know beside DeepSpeed's own file."""

    name: str
    tokenizer: str
    """The tokenizer.model, or the folder that holds it."""
    output_folder: str = "runs"
    seed: int = 0
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name={self.name!r} cannot name a folder: not empty, no '/', no leading '.'")

    @property
    def folder(self) -> Path:
        """`output_folder`/`name`: metrics, TensorBoard and checkpoints."""
        return Path(self.output_folder) / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of this run lie."""
        return self.folder / FOLDER


@dataclass(frozen=True)
class Job:
    """A run that has been found possible, with what it opened."""

    run: Run
    settings: DeepSpeedSettings
    tokenizer: Tokenizer
    shape: DecoderShape
    stream: TrainStream
    held_out: dict[str, DataSet]
    ranks: int


def open_run(run: Run, deepspeed_file: Path) -> Job:
    """Check everything that can be wrong with the request before anything costs.

    Raises ConfigError (batch does not divide, rows longer than the context, settings that disagree, a folder that holds
    a run while checkpoint.resume=none), TokenizerError, ShardError (no shards, a cut tar, another tokenizer).
    """
    ranks = world_size()
    share = RunsShare(
        run.train.sequences_per_step, run.train.micro_sequences, run.train.precision, run.optimizer.clip_norm, ranks
    )
    settings = merge_settings(deepspeed_file, share)
    check_zero_section(settings)
    tokenizer = Tokenizer.load(run.tokenizer)
    shape = run.model.shape(tokenizer)
    if run.data.row_tokens > shape.context_tokens:
        raise ConfigError(
            f"data.row_tokens={run.data.row_tokens} is more than the model's context_tokens={shape.context_tokens}"
        )
    if not run.data.train:
        raise ConfigError(
            "data.train names no shards: give at least one folder with its weight, `{shards/zhwiki: 1.0}`"
        )
    sets = [(DataSet.open(Path(folder), tokenizer.sha256), weight) for folder, weight in run.data.train.items()]
    held_out = {name: DataSet.open(Path(folder), tokenizer.sha256) for name, folder in run.evaluate.sets.items()}
    _check_folder(run)
    stream = TrainStream(
        sets,
        row_tokens=run.data.row_tokens,
        packing=run.data.packing,
        seed=run.seed,
        sequences_per_step=run.train.sequences_per_step,
    )
    return Job(run, settings, tokenizer, shape, stream, held_out, ranks)


def _check_folder(run: Run) -> None:
    if run.checkpoint.resume == "none" and (run.checkpoints.exists() or (run.folder / FILE_NAME).exists()):
        raise ConfigError(
            f"{run.folder} already holds a run and checkpoint.resume=none: choose another name, or say"
            " checkpoint.resume=auto"
        )
    if run.folder.exists() and not run.folder.is_dir():
        raise ConfigError(f"{run.folder} is a file; the run wants to make a folder of this name")
