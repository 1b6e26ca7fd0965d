"""What of a run a rehearsal trains: few steps of a small model on short sequences, read through links to its shards."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from megadec.common.config import to_dict
from megadec.common.errors import ConfigError
from megadec.common.tokenizer import Tokenizer
from megadec.data.resumable import check_groups
from megadec.data.shard_folders import LocalFolder, open_folder
from megadec.engine.early_stopping import EarlyStopping
from megadec.engine.metrics.options import MetricsOptions
from megadec.engine.runs.open_pretrain import folders_of
from megadec.engine.runs.pretrain import ModelOptions, PretrainRun
from megadec.engine.runs.stages import StageOptions, stage_values
from megadec.engine.zero.settings import read_settings
from megadec.rehearse.disturbances import EVALUATE_EVERY, SAVE_EVERY, RehearsalOptions

SMALL_HEAD, SMALL_LAYERS, SMALL_INTERMEDIATE = 16, 2, 64
WARMUP_STEPS, WINDOWS, MICRO_BATCH_SIZE = 5, 8, 1


def scale(run: PretrainRun, options: RehearsalOptions) -> PretrainRun:
    """The run with few steps, short sequences, a small batch that every number of ranks divides, and often a save.

    Its stages begin evenly over the steps, so that disturbances fall around their first ones. Raises ConfigError when
    there are too few steps for that, or when the ranks do not share sequences as the run says.
    """
    shared_by = run.train.sequence_parallel_size
    for ranks in options.all_ranks:
        check_groups(ranks, shared_by)
    if len(run.stages) >= options.run_steps:
        raise ConfigError(f"rehearsal.steps={options.run_steps} is too few for {len(run.stages)} stages")
    lengths = [stage.values["data"]["sequence_length"] for stage in stage_values(to_dict(run))]
    longest = min(options.sequence_length, max(lengths))
    # A longer stage stays the longer one; ranks share equal parts of a sequence.
    sequence_length, *later = (max(1, length * longest // max(lengths) // shared_by) * shared_by for length in lengths)
    least_batch = MICRO_BATCH_SIZE * math.lcm(*(ranks // shared_by for ranks in options.all_ranks))
    train = replace(
        run.train,
        steps=options.run_steps,
        stop_at_step=None,
        global_batch_size=2 * least_batch,
        micro_batch_size=MICRO_BATCH_SIZE,
    )
    first_steps = (1 + number * options.run_steps // (len(run.stages) + 1) for number in range(1, len(run.stages) + 1))
    stages = tuple(
        _scaled_stage(run, stage, first_step, length, least_batch, own_model=options.own_model)
        for stage, first_step, length in zip(run.stages, first_steps, later, strict=True)
    )
    windows, micro = min(run.evaluate.windows, WINDOWS), MICRO_BATCH_SIZE
    return replace(
        run,
        name="disturbed",
        model=run.model if options.own_model else _small(run, longest),
        data=replace(run.data, sequence_length=sequence_length, bad_shards=0),
        train=train,
        schedule=replace(run.schedule, warmup_steps=min(run.schedule.warmup_steps, WARMUP_STEPS)),
        evaluate=replace(run.evaluate, interval_steps=EVALUATE_EVERY, windows=windows, micro_batch_size=micro),
        checkpoint=replace(run.checkpoint, interval_steps=SAVE_EVERY, keep_every=0, resume="auto"),
        metrics=MetricsOptions(tensorboard=False),
        early_stopping=EarlyStopping(),  # it would end the run before the disturbances are through
        stages=stages,
        stage=None,
    )


def _scaled_stage(
    run: PretrainRun, stage: StageOptions, first_step: int, sequence_length: int, least_batch: int, *, own_model: bool
) -> StageOptions:
    """A stage of the scaled run: a batch that is smaller, larger or as large as the run's stays so."""
    data, train, schedule = dict(stage.data), {}, dict(stage.schedule)
    if "sequence_length" in data:
        data["sequence_length"] = sequence_length
    if (batch := stage.train.get("global_batch_size")) is not None:
        before = run.train.global_batch_size
        train["global_batch_size"] = least_batch * (4 if batch > before else 2 if batch == before else 1)
    if "warmup_steps" in schedule:
        schedule["warmup_steps"] = min(schedule["warmup_steps"], WARMUP_STEPS)
    model = dict(stage.model)
    if not own_model and "shape" in model:  # the small one has the context of its longest sequences from the beginning
        model["shape"] = {key: value for key, value in model["shape"].items() if key.startswith("rope_")}
    return replace(stage, first_step=first_step, data=data, train=train, schedule=schedule, model=model)


def _small(run: PretrainRun, sequence_length: int) -> ModelOptions:
    """A small model of the same kind: what it computes with is kept, what it holds is not."""
    own = run.model.decoder_shape(Tokenizer.load(run.tokenizer)) if run.model.init_from is None else None
    heads = 2 * run.train.sequence_parallel_size
    shared = own is None or own.kv_heads < own.heads
    small = {
        "hidden_size": heads * SMALL_HEAD,
        "layers": SMALL_LAYERS,
        "heads": heads,
        "kv_heads": heads // 2 if shared else heads,
        "head_size": SMALL_HEAD,
        "intermediate_size": SMALL_INTERMEDIATE,
        "max_position_embeddings": sequence_length,
    }
    return replace(run.model, init_from=None, shape={**run.model.shape, **small})


def scaled_settings(file: Path, options: RehearsalOptions) -> dict[str, Any]:
    """The DeepSpeed file; a small model's parameters are partitioned too, which stage 3 leaves out by default."""
    values = read_settings(file)
    zero = values.get("zero_optimization", {})
    if not options.own_model and zero.get("stage") == 3:
        zero["stage3_param_persistence_threshold"] = 0
    return values


def with_links(run: PretrainRun, folder: Path) -> PretrainRun:
    """The run with folders of links in place of its own in every mixture; addresses stay as they are."""
    links = {name: _link(run, name, folder / str(number)) for number, name in enumerate(folders_of(run))}

    def linked(data: dict[str, Any]) -> dict[str, dict[str, float]]:
        folders = {key: data[key] for key in ("train", "max_epochs") if key in data}
        return {key: {links[name]: value for name, value in values.items()} for key, values in folders.items()}

    stages = tuple(replace(stage, data={**stage.data, **linked(stage.data)}) for stage in run.stages)
    own = linked({"train": run.data.train, "max_epochs": run.data.max_epochs})
    return replace(run, data=replace(run.data, train=own["train"], max_epochs=own["max_epochs"]), stages=stages)


def _link(run: PretrainRun, name: str, folder: Path) -> str:
    place = open_folder(name, run.data.cache)
    if not isinstance(place, LocalFolder):
        return name
    place.read_index()  # says so where there is none
    links = folder / place.name
    links.mkdir(parents=True)
    for file in place.path.resolve().iterdir():
        (links / file.name).symlink_to(file)
    return str(links)
