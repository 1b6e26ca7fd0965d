"""What every run has, whatever it trains, and a run that was opened.

In come the sections of a YAML file that pretraining, fine-tuning and pairs share; out comes a `Job`: a request that is
known to be possible. Each kind of run adds its own sections to `CommonRun` as fields of a subclass, because one file
with all sections of all kinds would accept keys that do nothing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from megadec.common.errors import ConfigError, check_range
from megadec.common.ranks import world_size
from megadec.common.tokenizer import Tokenizer
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.health.guard import GuardOptions
from megadec.engine.metrics.options import FILE_NAME, MetricsOptions
from megadec.engine.metrics.reports import Saved
from megadec.engine.metrics.trackers import check_trackers
from megadec.engine.optimizer import OptimizerOptions
from megadec.engine.schedule import ScheduleOptions, learning_rate_factor
from megadec.engine.train_options import TrainOptions
from megadec.engine.zero.settings import DeepSpeedSettings, merge_settings

if TYPE_CHECKING:  # a request is checked without torch, as far as that goes
    from megadec.engine.task import Shape, Task

CHECKPOINTS = "checkpoints"
START = "start"  # the stage that every run begins with
LONGEST_NAME = 255  # bytes; what Linux's and macOS's file systems allow
NO_PATH = ("auto", "none")  # what `checkpoint.resume` says beside the path of a checkpoint
# What other tools say for these.
RESUME_WORDS = {"auto": "auto", "latest": "auto", "true": "auto", "none": "none", "false": "none"}
# In a task's details: what the weights that the run began from hold; they may lie elsewhere when it goes on.
INITIAL_CONTENT = "initial_content"
# `model.shape`: fields of the shape's dataclass, which alone knows their names, types and rules.
ShapeFields = dict[str, bool | int | float | str | dict[str, bool | int | float | str] | None]


@dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, kept and resumed from.

    interval_steps: save every this many steps; 0: at the end only.
    keep_last: how many of the newest are kept.
    keep_every: keep those of every this many steps for good; 0: none.
    resume: `auto` (or `true`, `latest`) continues from the newest whole checkpoint of the run, or begins; `none` (or
        `false`) refuses a folder that holds a run; anything else is the path of a checkpoint, or of a run, whose newest
        is taken. Given again, the same path goes on from what the run has saved since.
    asynchronous: each rank copies its part of the state into host memory and writes it while training continues; false:
        training waits.
    snapshot_bytes: train on only while a rank's part is at most this large; null: unless DeepSpeed keeps it on NVMe for
        want of host memory.
    retries, retry_pause_seconds: how often to write again when the disk is full, and the wait before each try.
    """

    interval_steps: int = 1000
    keep_last: int = 3
    keep_every: int = 0
    resume: str = "auto"
    asynchronous: bool = True
    snapshot_bytes: int | None = None
    retries: int = 5
    retry_pause_seconds: float = 60.0

    def __post_init__(self) -> None:
        counts = ("interval_steps", "keep_every", "snapshot_bytes", "retries", "retry_pause_seconds")
        check_range(self, "checkpoint.", *counts, least=0)
        check_range(self, "checkpoint.", "keep_last", least=1)
        if self.resume.lower() in RESUME_WORDS and not Path(self.resume).exists():
            object.__setattr__(self, "resume", RESUME_WORDS[self.resume.lower()])
        if self.keep_every and (not self.interval_steps or self.keep_every % self.interval_steps):
            raise ConfigError(
                f"checkpoint.keep_every={self.keep_every} is not a multiple of interval_steps={self.interval_steps},"
                " and what is to stay must be saved first"
            )


@dataclass(frozen=True)
class CommonRun:
    """The sections that every kind of run has beside DeepSpeed's own file.

    name: of the run's folder, `output_folder`/`name`.
    tokenizer: the tokenizer.model, or the folder that holds it; of a model made elsewhere its folder.
    output_folder: where runs are kept.
    seed: of initial weights, the order of windows, dropout.
    """

    name: str
    tokenizer: str
    output_folder: str = "runs"
    seed: int = 0
    train: TrainOptions = field(default_factory=TrainOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    schedule: ScheduleOptions = field(default_factory=ScheduleOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    metrics: MetricsOptions = field(default_factory=MetricsOptions)
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    guard: GuardOptions = field(default_factory=GuardOptions)

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigError(f"name={self.name!r} cannot name a folder: not empty, no '/', no leading '.'")
        if (size := len(os.fsencode(self.name))) > LONGEST_NAME:
            raise ConfigError(f"name has {size} bytes; a folder's name has at most {LONGEST_NAME}")
        check_range(self, "", "seed", least=0, below=2**63)

    @property
    def folder(self) -> Path:
        """`output_folder`/`name`: metrics, TensorBoard and checkpoints."""
        return Path(self.output_folder) / self.name

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of this run lie."""
        return self.folder / CHECKPOINTS


@dataclass(frozen=True)
class Stage:
    """A run from step `first_step` on, counted from 1, until its next stage begins.

    run: with what the stage changes, and without stages. schedule_first_step: where the schedule begins to count.
    """

    name: str
    first_step: int
    run: CommonRun
    schedule_first_step: int = 1

    def learning_rate(self, step: int) -> float:
        """The rate of the update of step `step`, counted from 1."""
        run, before = self.run, self.schedule_first_step - 1
        return run.optimizer.learning_rate * learning_rate_factor(
            run.schedule, step - 1 - before, run.train.steps - before
        )


@dataclass(frozen=True)
class Job:
    """A run that has been found possible, with what it opened.

    on_saved: called on every rank when a checkpoint is finished, so that a launcher such as Ray can be told. changes:
    the stages after the first, and shapes: of each, where the run has any.
    """

    run: CommonRun
    settings: DeepSpeedSettings
    tokenizer: Tokenizer
    task: "Task"
    on_saved: Callable[[Saved], None] | None = None
    changes: tuple[Stage, ...] = ()
    shapes: "tuple[Shape, ...]" = ()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, of which every run has at least one."""
        return (Stage(START, 1, self.run), *self.changes)

    @property
    def steps(self) -> int:
        """The last step of the run."""
        return self.stages[-1].run.train.steps

    @property
    def last_step(self) -> int:
        """The step after which this start of the run ends."""
        return min(self.steps, self.run.train.stop_at_step or self.steps)

    def stage_of(self, step: int) -> Stage:
        """The stage that step `step`, counted from 1, belongs to; the first one for step 0, before which it begins."""
        return self.stages[self._number_of(step)]

    def shape_of(self, step: int) -> "Shape":
        """The model's shape in that stage."""
        return self.shapes[self._number_of(step)] if self.shapes else self.task.shape

    def _number_of(self, step: int) -> int:
        return sum(stage.first_step <= step for stage in self.changes)


def with_vocabulary(fields: ShapeFields, tokenizer: Tokenizer) -> ShapeFields:
    """`model.shape` with the tokenizer's vocabulary_size where none is given; a larger one leaves unused embeddings.

    Raises ConfigError for a smaller one.
    """
    known = tokenizer.vocabulary_size
    size = fields.get("vocabulary_size", known)
    if isinstance(size, int) and size < known:
        raise ConfigError(f"model.shape.vocabulary_size={size} is less than the {known} of {tokenizer.path}")
    return {**fields, "vocabulary_size": size}


def open_settings(run: CommonRun, deepspeed_file: Path, *, sequence_parallel: bool = False) -> DeepSpeedSettings:
    """The file of `--deepspeed` joined with the run's share of it; the run's trackers and folder are looked at too.

    sequence_parallel: this kind of run knows how ranks share sequences. Raises ConfigError: the batch does not divide,
    the two disagree, DeepSpeed does not know a key, the folder cannot be used as the run says. Raises MissingExtraError
    for a tracker that is not installed.
    """
    parts = run.train.sequence_parallel_size
    if parts > 1 and not sequence_parallel:
        raise ConfigError(f"train.sequence_parallel_size={parts}: only pretraining shares sequences among ranks")
    settings = merge_settings(deepspeed_file, run.train, run.optimizer.max_grad_norm, world_size())
    check_trackers(run.metrics)
    _check_folder(run)
    from megadec.engine.zero.engine import (  # imports DeepSpeed: seconds, so it comes last
        check_nvme,
        check_zero_section,
    )

    check_zero_section(settings)
    check_nvme(settings)
    return settings


def check_length(key: str, tokens: int, positions: int) -> None:
    """Raise ConfigError when sequences of so many tokens do not fit the model's positions. key: of the tokens."""
    if tokens > positions:
        raise ConfigError(f"{key}={tokens} is more than model.shape.max_position_embeddings={positions}")


def _check_folder(run: CommonRun) -> None:
    """Raise ConfigError when the run's folder cannot be used as the run says."""
    if run.checkpoint.resume == "none" and (run.checkpoints.exists() or (run.folder / FILE_NAME).exists()):
        raise ConfigError(f"{run.folder} already holds a run and checkpoint.resume=none: choose another name, or auto")
    if run.checkpoint.resume not in NO_PATH and not Path(run.checkpoint.resume).is_dir():
        raise ConfigError(
            f"checkpoint.resume={run.checkpoint.resume} is neither auto nor none, nor a folder of a checkpoint or run"
        )
    if run.folder.exists() and not run.folder.is_dir():
        raise ConfigError(f"{run.folder} is a file; the run wants to make a folder of this name")
    if (run.folder / FILE_NAME).is_dir():
        raise ConfigError(f"{run.folder / FILE_NAME} is a folder; the run wants to write a file of this name")
