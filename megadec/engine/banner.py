"""What a start says of its run before the first step: how large it is, where it goes, and what may not be meant."""

import math

import torch

from megadec.common.log import logger
from megadec.data.stages import StagedStream
from megadec.decoder.kernels.precision import has_bf16
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job, Stage

log = logger(__name__)


def announce(job: Job, ranks: Ranks, progress: Progress) -> None:
    """Log the run's size, data, learning rate and folders; warn of settings that contradict each other."""
    stage, precision = job.stage_of(progress.step + 1), job.settings.precision
    train, begins = stage.run.train, stage.schedule_first_step
    if precision == "bf16" and not has_bf16():
        log.info(
            "train.precision=bf16: this machine has no bf16 instructions, so a step takes as long as in fp32 or up to a"
            " fifth longer, and only weights and activations are smaller; train.precision=auto takes fp32 here"
        )
    if (warmup := stage.run.schedule.warmup_steps) > train.steps - begins:
        log.warning(f"schedule.warmup_steps={warmup} of train.steps={train.steps}: the rate never reaches its peak")
    stream = job.task.stream
    windows = (stream.at(progress.step) if isinstance(stream, StagedStream) else stream).windows_per_epoch
    if windows < train.global_batch_size:
        batch = f"train.global_batch_size={train.global_batch_size}"
        log.warning(f"an epoch has {windows:,} sequences, fewer than {batch}: a step sees some of them twice")
    for line in _lines(job, ranks, progress):
        log.info(line)


def _lines(job: Job, ranks: Ranks, progress: Progress) -> list[str]:
    run, settings, why = job.run, job.settings, ""
    if run.train.precision == "auto":
        machine = "GPU" if torch.cuda.is_available() else "CPU"
        why = f" (auto: this {machine} has {'' if settings.precision == 'bf16' else 'no '}bf16 instructions)"
    parameters = sum(math.prod(size) for size in job.task.sizes.values())
    ends = [*(one.first_step - 1 for one in job.changes), job.steps]
    return [
        f"{run.name}: {job.task.kind.replace('_', ' ')}, {parameters:,} parameters, ZeRO stage {settings.stage},"
        f" {settings.precision}{why}, {ranks.world_size} rank(s)",
        f"step {progress.step} of {job.steps}",
        *(_data(job, stage, end) for stage, end in zip(job.stages, ends, strict=True)),
        f"metrics in {run.folder}, checkpoints in {run.checkpoints}",
    ]


def _data(job: Job, stage: Stage, last_step: int) -> str:
    """How much a step of a stage and all of its steps read, how often they see what there is, and the highest rate."""
    steps, batch = last_step - stage.first_step + 1, stage.run.train.global_batch_size
    name = f"stage {stage.name}, steps {stage.first_step} to {last_step}: " if job.changes else ""
    rate = f"learning rate up to {stage.run.optimizer.learning_rate:g}"
    stream = job.task.stream
    if not isinstance(stream, StagedStream):
        epochs = steps * batch / stream.windows_per_epoch
        return f"{batch:,} sequences a step, {steps * batch:,} in all: {epochs:.3g} epochs; {rate}"
    own = stream.at(stage.first_step - 1)
    tokens, epochs = batch * own.sequence_length, steps * batch / own.windows_per_epoch
    seen = ", ".join(f"{data.folder} {weight * epochs:.3g}" for data, weight in own.sets)
    return f"{name}{batch:,} sequences ({tokens:,} tokens) a step, {steps * tokens:,} tokens in all; epochs: {seen}; {rate}"
