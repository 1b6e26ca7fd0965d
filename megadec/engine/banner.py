"""What a start says of its run before the first step: how large it is, where it goes, and what may not be meant."""

import math

import torch

from megadec.common.log import logger
from megadec.data.stream import TrainStream
from megadec.decoder.kernels.precision import has_bf16
from megadec.engine.checkpoint.manifest import Progress
from megadec.engine.ranks import Ranks
from megadec.engine.runs.common import Job

log = logger(__name__)


def announce(job: Job, ranks: Ranks, progress: Progress) -> None:
    """Log the run's size, data, learning rate and folders; warn of settings that contradict each other."""
    stage, precision = job.stage_of(progress.step + 1), job.settings.precision
    run, last = stage.run, stage.run.train.steps
    if precision == "bf16" and not has_bf16():
        log.info(
            "train.precision=bf16: this machine has no bf16 instructions, so a step takes as long as in fp32 or up to a"
            " fifth longer, and only weights and activations are smaller; train.precision=auto takes fp32 here"
        )
    if (warmup := run.schedule.warmup_steps) > last - stage.schedule_first_step:
        log.warning(f"schedule.warmup_steps={warmup} of train.steps={last}: the rate never reaches its peak")
    if (windows := job.task.stream.at(progress.step).windows_per_epoch) < run.train.global_batch_size:
        batch = f"train.global_batch_size={run.train.global_batch_size}"
        log.warning(f"an epoch has {windows:,} sequences, fewer than {batch}: a step sees some of them twice")
    for line in _lines(job, ranks, progress):
        log.info(line)


def _lines(job: Job, ranks: Ranks, progress: Progress) -> list[str]:
    run, settings, why = job.stage_of(progress.step + 1).run, job.settings, ""
    if run.train.precision == "auto":
        machine = "GPU" if torch.cuda.is_available() else "CPU"
        why = f" (auto: this {machine} has {'' if settings.precision == 'bf16' else 'no '}bf16 instructions)"
    parameters = sum(math.prod(size) for size in job.task.sizes.values())
    return [
        f"{run.name}: {job.task.kind.replace('_', ' ')}, {parameters:,} parameters, ZeRO stage {settings.stage},"
        f" {settings.precision}{why}, {ranks.world_size} rank(s)",
        f"step {progress.step} of {job.steps}, {_data(job, progress.step)};"
        f" learning rate up to {run.optimizer.learning_rate:g}",
        f"metrics in {run.folder}, checkpoints in {run.checkpoints}",
        *_stages(job, progress.step),
    ]


def _stages(job: Job, step: int) -> list[str]:
    """The stages of a run that has some, with their steps, which of them comes next, and what all of them read."""
    if not job.changes:
        return []
    ends = [*(one.first_step - 1 for one in job.changes), job.steps]
    spans, tokens = [], 0
    for stage, end in zip(job.stages, ends, strict=True):
        spans.append(f"{stage.name} (steps {stage.first_step} to {end})")
        stream = job.task.stream.at(stage.first_step - 1)
        assert isinstance(stream, TrainStream), "no other kind of run has stages"
        tokens += (end - stage.first_step + 1) * stage.run.train.global_batch_size * stream.sequence_length
    return [f"stage {job.stage_of(step + 1).name} of {', '.join(spans)}; {tokens:,} tokens in all stages"]


def _data(job: Job, step: int) -> str:
    """How much a step and the whole run, or its stage, read, and how often they see what there is."""
    stream, stage = job.task.stream.at(step), job.stage_of(step + 1)
    later = [one.first_step for one in job.changes if one.first_step > stage.first_step]
    steps = (later[0] - 1 if later else job.steps) - stage.first_step + 1
    batch, where = stage.run.train.global_batch_size, f"in stage {stage.name}" if job.changes else "in all"
    epochs = steps * batch / stream.windows_per_epoch
    if not isinstance(stream, TrainStream):
        return f"{batch:,} sequences a step, {steps * batch:,} in all: {epochs:.3g} epochs"
    tokens = batch * stream.sequence_length
    seen = ", ".join(f"{data.folder} {weight * epochs:.3g}" for data, weight in stream.sets)
    return f"{batch:,} sequences ({tokens:,} tokens) a step, {steps * tokens:,} tokens {where}; epochs: {seen}"
